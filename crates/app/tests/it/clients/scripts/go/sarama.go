// sarama under the contract of `../../contract.rs`.
package main

import (
	"context"
	"errors"
	"os"
	"sort"
	"time"

	"github.com/IBM/sarama"
)

const limit = 30 * time.Second

var brokers = []string{os.Args[2]}

func main() {
	if os.Args[1] == "agent" {
		agent()
	} else {
		member(os.Args[3], os.Args[4])
	}
}

// config returns what everything begins with: the newest protocol that it speaks.
func config() *sarama.Config {
	made := sarama.NewConfig()
	made.Version = sarama.MaxVersion
	made.Consumer.MaxWaitTime = 200 * time.Millisecond
	made.Consumer.Offsets.Initial = sarama.OffsetOldest
	made.Consumer.Offsets.AutoCommit.Enable = false
	made.Producer.Partitioner = sarama.NewManualPartitioner
	made.Producer.Return.Successes = true
	made.Producer.Flush.Frequency = 20 * time.Millisecond
	return made
}

func agent() {
	admin, err := sarama.NewClusterAdmin(brokers, config())
	must(err)
	serve(map[string]func(command) (answer, error){
		"create": func(c command) (answer, error) {
			wanted := &sarama.TopicDetail{NumPartitions: c.count(), ReplicationFactor: 1}
			return nil, admin.CreateTopic(c.Topic, wanted, false)
		},
		"delete": func(c command) (answer, error) {
			return nil, admin.DeleteTopic(c.Topic)
		},
		"topics": func(command) (answer, error) {
			found, err := admin.ListTopics()
			names := []string{}
			for name := range found {
				names = append(names, name)
			}
			sort.Strings(names)
			return answer{"topics": names}, err
		},
		"describe": func(c command) (answer, error) {
			found, err := admin.DescribeTopics([]string{c.Topic})
			if err != nil {
				return nil, err
			}
			if found[0].Err != sarama.ErrNoError {
				return nil, found[0].Err
			}
			return answer{"partitions": len(found[0].Partitions)}, nil
		},
		"groups": func(command) (answer, error) {
			found, err := admin.ListConsumerGroups()
			names := []string{}
			for name := range found {
				names = append(names, name)
			}
			return answer{"groups": names}, err
		},
		"group": func(c command) (answer, error) {
			found, err := admin.DescribeConsumerGroups([]string{c.Group})
			if err != nil {
				return nil, err
			}
			return answer{"state": found[0].State, "members": len(found[0].Members)}, nil
		},
		"committed": func(c command) (answer, error) {
			asked := map[string]map[string][]int32{c.Group: {c.Topic: c.list()}}
			found, err := admin.ListConsumerGroupOffsetsBatch(asked)
			if err != nil {
				return nil, err
			}
			var offsets []int64
			for _, partition := range c.list() {
				offsets = append(offsets, found[c.Group].Blocks[c.Topic][partition].Offset)
			}
			return answer{"offsets": offsets}, nil
		},
		"produce":  produce,
		"consume":  consume,
		"transact": transact,
		"finish":   finish,
	})
}

// messages returns records as sarama takes them.
func messages(c command) []*sarama.ProducerMessage {
	encoder := func(text *string) sarama.Encoder {
		if text == nil {
			return nil
		}
		return sarama.ByteEncoder(fromHex(text))
	}
	var all []*sarama.ProducerMessage
	for _, given := range c.Records {
		message := &sarama.ProducerMessage{
			Topic:     c.Topic,
			Partition: given.Partition,
			Key:       encoder(given.Key),
			Value:     encoder(given.Value),
			Timestamp: time.UnixMilli(given.Timestamp),
		}
		for _, header := range given.Headers {
			message.Headers = append(message.Headers,
				sarama.RecordHeader{Key: []byte(*header[0]), Value: fromHex(header[1])})
		}
		all = append(all, message)
	}
	return all
}

func produce(c command) (answer, error) {
	set := config()
	set.Producer.Compression = map[string]sarama.CompressionCodec{
		"none":   sarama.CompressionNone,
		"gzip":   sarama.CompressionGZIP,
		"snappy": sarama.CompressionSnappy,
		"lz4":    sarama.CompressionLZ4,
		"zstd":   sarama.CompressionZSTD,
	}[c.Compression]
	set.Producer.RequiredAcks = map[string]sarama.RequiredAcks{
		"all": sarama.WaitForAll, "1": sarama.WaitForLocal, "0": sarama.NoResponse,
	}[c.Acks]
	if c.Idempotent {
		set.Producer.Idempotent = true
		set.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer(brokers, set)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	return send(producer, messages(c))
}

func send(producer sarama.SyncProducer, all []*sarama.ProducerMessage) (answer, error) {
	if err := producer.SendMessages(all); err != nil {
		var failed sarama.ProducerErrors
		if errors.As(err, &failed) {
			err = failed[0].Err
		}
		return nil, err
	}
	placed := [][2]int64{}
	for _, produced := range all {
		placed = append(placed, [2]int64{int64(produced.Partition), produced.Offset})
	}
	return answer{"placed": placed}, nil
}

// open is the producer whose transaction was left open.
var open sarama.SyncProducer

func transact(c command) (answer, error) {
	set := config()
	set.Producer.Idempotent = true
	set.Net.MaxOpenRequests = 1
	set.Producer.RequiredAcks = sarama.WaitForAll
	set.Producer.Transaction.ID = c.Id
	producer, err := sarama.NewSyncProducer(brokers, set)
	if err != nil {
		return nil, err
	}
	if err := producer.BeginTxn(); err != nil {
		return nil, err
	}
	placed, err := send(producer, messages(c))
	if err != nil {
		return nil, err
	}
	switch c.End {
	case "commit":
		err = producer.CommitTxn()
	case "abort":
		err = producer.AbortTxn()
	default:
		open = producer
		return placed, nil
	}
	return placed, errors.Join(err, producer.Close())
}

func finish(command) (answer, error) {
	return nil, open.CommitTxn()
}

func told(found *sarama.ConsumerMessage) record {
	headers := [][2]*string{}
	for _, header := range found.Headers {
		name := string(header.Key)
		headers = append(headers, [2]*string{&name, toHex(header.Value)})
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
	set := config()
	if c.Isolation == "read_committed" {
		set.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	consumer, err := sarama.NewConsumer(brokers, set)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	partitions, err := consumer.Partitions(c.Topic)
	if err != nil {
		return nil, err
	}
	all := make(chan *sarama.ConsumerMessage)
	ended := make(chan struct{})
	for _, partition := range partitions {
		part, err := consumer.ConsumePartition(c.Topic, partition, sarama.OffsetOldest)
		if err != nil {
			return nil, err
		}
		defer part.AsyncClose()
		go func() {
			for found := range part.Messages() {
				select {
				case all <- found:
				case <-ended:
				}
			}
		}()
	}
	defer close(ended)
	records := []record{}
	late := time.After(limit)
	for len(records) < c.Count {
		select {
		case found := <-all:
			records = append(records, told(found))
		case <-late:
			return answer{"records": records}, nil
		}
	}
	return answer{"records": records}, nil
}

func member(group, topic string) {
	set := config()
	set.Consumer.Return.Errors = true
	set.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	set.Consumer.Group.Session.Timeout = 10 * time.Second
	set.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	consumer, err := sarama.NewConsumerGroup(brokers, group, set)
	must(err)
	go func() {
		for err := range consumer.Errors() {
			tell(answer{"event": "uncommitted", "error": err.Error()})
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	ended := untilStdinEnds()
	go func() {
		<-ended
		cancel()
	}()
	for ctx.Err() == nil {
		if err := consumer.Consume(ctx, []string{topic}, reader{topic}); err != nil && ctx.Err() == nil {
			tell(answer{"event": "uncommitted", "error": err.Error()})
		}
	}
	must(consumer.Close())
	tell(answer{"event": "left"})
}

// reader tells what it reads of its share, and commits it.
type reader struct{ topic string }

func (r reader) Setup(session sarama.ConsumerGroupSession) error {
	partitions := append([]int32{}, session.Claims()[r.topic]...)
	sort.Slice(partitions, func(i, j int) bool { return partitions[i] < partitions[j] })
	tell(answer{"event": "assigned", "partitions": partitions})
	return nil
}

func (r reader) Cleanup(sarama.ConsumerGroupSession) error {
	tell(answer{"event": "revoked"})
	return nil
}

func (r reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case found, more := <-claim.Messages():
			if !more {
				return nil
			}
			event := told(found)
			tell(answer{
				"event": "record", "partition": event.Partition, "offset": event.Offset, "timestamp": event.Timestamp,
				"key": event.Key, "value": event.Value, "headers": event.Headers,
			})
			session.MarkMessage(found, "")
			if len(claim.Messages()) == 0 {
				// It says nothing of success; whoever resumes shows it.
				session.Commit()
			}
		case <-session.Context().Done():
			return nil
		}
	}
}
