// franz-go under the contract of `../../contract.rs`.
package main

import (
	"context"
	"os"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const limit = 30 * time.Second

var bootstrap = os.Args[2]

func main() {
	if os.Args[1] == "agent" {
		agent()
	} else {
		member(os.Args[3], os.Args[4])
	}
}

func agent() {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	must(err)
	defer client.Close()
	admin := kadm.NewClient(client)
	soon := func() context.Context {
		ctx, _ := context.WithTimeout(context.Background(), limit) //nolint:govet // the process ends soon
		return ctx
	}
	serve(map[string]func(command) (answer, error){
		"create": func(c command) (answer, error) {
			_, err := admin.CreateTopic(soon(), c.count(), 1, nil, c.Topic)
			return nil, err
		},
		"delete": func(c command) (answer, error) {
			_, err := admin.DeleteTopic(soon(), c.Topic)
			return nil, err
		},
		"topics": func(command) (answer, error) {
			found, err := admin.ListTopics(soon())
			return answer{"topics": found.Names()}, err
		},
		"describe": func(c command) (answer, error) {
			found, err := admin.ListTopics(soon(), c.Topic)
			if err == nil {
				err = found[c.Topic].Err
			}
			return answer{"partitions": len(found[c.Topic].Partitions), "problem": nil}, err
		},
		"groups": func(command) (answer, error) {
			found, err := admin.ListGroups(soon())
			return answer{"groups": found.Groups()}, err
		},
		"group": func(c command) (answer, error) {
			found, err := admin.DescribeGroups(soon(), c.Group)
			group := found[c.Group]
			return answer{"state": group.State, "members": len(group.Members)}, err
		},
		"committed": func(c command) (answer, error) {
			found, err := admin.FetchOffsets(soon(), c.Group)
			var offsets []int64
			for _, partition := range c.list() {
				at, _ := found.Lookup(c.Topic, partition)
				offsets = append(offsets, at.At)
			}
			return answer{"offsets": offsets}, err
		},
		"produce":  produce,
		"consume":  consume,
		"transact": transact,
		"finish":   finish,
	})
}

func produce(c command) (answer, error) {
	codec := map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}[c.Compression]
	acks := map[string]kgo.Acks{"all": kgo.AllISRAcks(), "1": kgo.LeaderAck(), "0": kgo.NoAck()}[c.Acks]
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.RequiredAcks(acks),
		kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(20 * time.Millisecond),
	}
	if !c.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	producer, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	records := toSend(c)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return nil, err
	}
	// Results come as they are acknowledged; the records themselves stay in order.
	placed := [][2]int64{}
	for _, produced := range records {
		placed = append(placed, [2]int64{int64(produced.Partition), produced.Offset})
	}
	return answer{"placed": placed}, nil
}

// toSend returns records as franz-go takes them.
func toSend(c command) []*kgo.Record {
	records := make([]*kgo.Record, len(c.Records))
	for i, given := range c.Records {
		records[i] = &kgo.Record{
			Topic:     c.Topic,
			Partition: given.Partition,
			Key:       fromHex(given.Key),
			Value:     fromHex(given.Value),
			Timestamp: time.UnixMilli(given.Timestamp),
		}
		for _, header := range given.Headers {
			records[i].Headers = append(records[i].Headers, kgo.RecordHeader{Key: *header[0], Value: fromHex(header[1])})
		}
	}
	return records
}

// open is the producer whose transaction was left open.
var open *kgo.Client

func transact(c command) (answer, error) {
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.TransactionalID(c.Id),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return nil, err
	}
	if err := producer.BeginTransaction(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := producer.ProduceSync(ctx, toSend(c)...).FirstErr(); err != nil {
		return nil, err
	}
	if c.End == "open" {
		open = producer
		return nil, nil
	}
	defer producer.Close()
	return nil, producer.EndTransaction(ctx, kgo.TransactionEndTry(c.End == "commit"))
}

func finish(command) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return nil, open.EndTransaction(ctx, kgo.TryCommit)
}

func told(found *kgo.Record) record {
	headers := [][2]*string{}
	for _, header := range found.Headers {
		headers = append(headers, [2]*string{&header.Key, toHex(header.Value)})
	}
	return record{
		Partition: found.Partition,
		Offset:    found.Offset,
		Timestamp: found.Timestamp.UnixMilli(),
		Key:       toHex(found.Key),
		Value:     toHex(found.Value),
		Headers:   headers,
	}
}

func consume(c command) (answer, error) {
	isolation := kgo.ReadUncommitted()
	if c.Isolation == "read_committed" {
		isolation = kgo.ReadCommitted()
	}
	consumer, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.FetchIsolationLevel(isolation),
		kgo.ConsumeTopics(c.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(200*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	records := []record{}
	for len(records) < c.Count && ctx.Err() == nil {
		consumer.PollFetches(ctx).EachRecord(func(found *kgo.Record) {
			records = append(records, told(found))
		})
	}
	return answer{"records": records}, nil
}

func member(group, topic string) {
	partitions := func(all map[string][]int32) []int32 {
		list := append([]int32{}, all[topic]...)
		sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
		return list
	}
	consumer, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(10*time.Second),
		kgo.HeartbeatInterval(300*time.Millisecond),
		kgo.FetchMaxWait(200*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, all map[string][]int32) {
			tell(answer{"event": "assigned", "partitions": partitions(all)})
		}),
		kgo.OnPartitionsRevoked(func(context.Context, *kgo.Client, map[string][]int32) {
			tell(answer{"event": "revoked"})
		}),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) {
			tell(answer{"event": "revoked"})
		}),
	)
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := untilStdinEnds()
	go func() {
		<-ended
		cancel()
	}()
	for ctx.Err() == nil {
		fetches := consumer.PollFetches(ctx)
		var last []*kgo.Record
		fetches.EachPartition(func(part kgo.FetchTopicPartition) {
			for _, found := range part.Records {
				event := told(found)
				tell(answer{
					"event": "record", "partition": event.Partition, "offset": event.Offset, "timestamp": event.Timestamp,
					"key": event.Key, "value": event.Value, "headers": event.Headers,
				})
			}
			if count := len(part.Records); count > 0 {
				last = append(last, part.Records[count-1])
			}
		})
		if len(last) == 0 {
			continue
		}
		if err := consumer.CommitRecords(context.Background(), last...); err != nil {
			tell(answer{"event": "uncommitted", "error": err.Error()})
			continue
		}
		offsets := map[int32]int64{}
		for _, found := range last {
			offsets[found.Partition] = found.Offset + 1
		}
		tell(answer{"event": "committed", "offsets": offsets})
	}
	consumer.Close()
	tell(answer{"event": "left"})
}
