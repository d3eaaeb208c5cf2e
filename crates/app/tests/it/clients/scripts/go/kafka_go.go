// kafka-go under the contract of `../../contract.rs`.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
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
	admin := &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: limit}
	ctx := context.Background()
	serve(map[string]func(command) (answer, error){
		"create": func(c command) (answer, error) {
			wanted := []kafka.TopicConfig{{Topic: c.Topic, NumPartitions: int(c.count()), ReplicationFactor: 1}}
			found, err := admin.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: wanted})
			if err == nil {
				err = found.Errors[c.Topic]
			}
			return nil, err
		},
		"delete": func(c command) (answer, error) {
			found, err := admin.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{c.Topic}})
			if err == nil {
				err = found.Errors[c.Topic]
			}
			return nil, err
		},
		"topics": func(command) (answer, error) {
			found, err := admin.Metadata(ctx, &kafka.MetadataRequest{})
			if err != nil {
				return nil, err
			}
			names := []string{}
			for _, topic := range found.Topics {
				names = append(names, topic.Name)
			}
			sort.Strings(names)
			return answer{"topics": names}, nil
		},
		"describe": func(c command) (answer, error) {
			found, err := admin.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{c.Topic}})
			if err == nil {
				err = found.Topics[0].Error
			}
			if err != nil {
				return nil, err
			}
			return answer{"partitions": len(found.Topics[0].Partitions)}, nil
		},
		"groups": func(command) (answer, error) {
			found, err := admin.ListGroups(ctx, &kafka.ListGroupsRequest{})
			if err == nil {
				err = found.Error
			}
			if err != nil {
				return nil, err
			}
			names := []string{}
			for _, group := range found.Groups {
				names = append(names, group.GroupID)
			}
			return answer{"groups": names}, nil
		},
		"group": func(c command) (answer, error) {
			found, err := admin.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{c.Group}})
			if err == nil {
				err = found.Groups[0].Error
			}
			if err != nil {
				return nil, err
			}
			group := found.Groups[0]
			return answer{"state": group.GroupState, "members": len(group.Members)}, nil
		},
		"committed": func(c command) (answer, error) {
			var partitions []int
			for _, partition := range c.list() {
				partitions = append(partitions, int(partition))
			}
			asked := &kafka.OffsetFetchRequest{GroupID: c.Group, Topics: map[string][]int{c.Topic: partitions}}
			found, err := admin.OffsetFetch(ctx, asked)
			if err == nil {
				err = found.Error
			}
			if err != nil {
				return nil, err
			}
			offsets := make([]int64, len(partitions))
			for _, partition := range found.Topics[c.Topic] {
				offsets[sort.SearchInts(partitions, partition.Partition)] = partition.CommittedOffset
			}
			return answer{"offsets": offsets}, nil
		},
		"produce": produce,
		"consume": consume,
	})
}

func produce(c command) (answer, error) {
	if c.Idempotent {
		return nil, errors.New("its producer cannot be idempotent")
	}
	var lock sync.Mutex
	placed := make([][2]int64, len(c.Records))
	writer := &kafka.Writer{
		Addr:  kafka.TCP(bootstrap),
		Topic: c.Topic,
		Balancer: kafka.BalancerFunc(func(message kafka.Message, _ ...int) int {
			return int(c.Records[message.WriterData.(int)].Partition)
		}),
		BatchTimeout: 20 * time.Millisecond,
		RequiredAcks: map[string]kafka.RequiredAcks{
			"all": kafka.RequireAll, "1": kafka.RequireOne, "0": kafka.RequireNone,
		}[c.Acks],
		Compression: map[string]kafka.Compression{
			"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
		}[c.Compression],
		Completion: func(messages []kafka.Message, _ error) {
			lock.Lock()
			defer lock.Unlock()
			for _, message := range messages {
				placed[message.WriterData.(int)] = [2]int64{int64(message.Partition), message.Offset}
			}
		},
	}
	messages := make([]kafka.Message, len(c.Records))
	for i, given := range c.Records {
		messages[i] = kafka.Message{
			Key:        fromHex(given.Key),
			Value:      fromHex(given.Value),
			Time:       time.UnixMilli(given.Timestamp),
			WriterData: i,
		}
		for _, header := range given.Headers {
			messages[i].Headers = append(messages[i].Headers, kafka.Header{Key: *header[0], Value: fromHex(header[1])})
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := errors.Join(writer.WriteMessages(ctx, messages...), writer.Close())
	return answer{"placed": placed}, err
}

func told(found kafka.Message) record {
	headers := [][2]*string{}
	for _, header := range found.Headers {
		headers = append(headers, [2]*string{&header.Key, toHex(header.Value)})
	}
	return record{
		Partition: int32(found.Partition),
		Offset:    found.Offset,
		Timestamp: found.Time.UnixMilli(),
		Key:       toHex(found.Key),
		Value:     toHex(found.Value),
		Headers:   headers,
	}
}

// reader reads one partition from an offset.
func reader(topic string, partition int, offset int64) *kafka.Reader {
	made := kafka.NewReader(kafka.ReaderConfig{
		Brokers:        []string{bootstrap},
		Topic:          topic,
		Partition:      partition,
		MaxWait:        200 * time.Millisecond,
		ReadBackoffMin: 10 * time.Millisecond,
		ErrorLogger:    kafka.LoggerFunc(log.Printf),
	})
	must(made.SetOffset(offset))
	return made
}

func consume(c command) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	partitions, err := kafka.DefaultDialer.LookupPartitions(ctx, "tcp", bootstrap, c.Topic)
	if err != nil {
		return nil, err
	}
	all := make(chan kafka.Message)
	for _, partition := range partitions {
		part := reader(c.Topic, partition.ID, kafka.FirstOffset)
		go func() {
			defer part.Close()
			for {
				found, err := part.ReadMessage(ctx)
				if err != nil {
					return
				}
				select {
				case all <- found:
				case <-ctx.Done():
				}
			}
		}()
	}
	records := []record{}
	for len(records) < c.Count {
		select {
		case found := <-all:
			records = append(records, told(found))
		case <-ctx.Done():
			return answer{"records": records}, nil
		}
	}
	return answer{"records": records}, nil
}

func member(group, topic string) {
	consumer, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                group,
		Brokers:           []string{bootstrap},
		Topics:            []string{topic},
		GroupBalancers:    []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		SessionTimeout:    10 * time.Second,
		HeartbeatInterval: 300 * time.Millisecond,
		StartOffset:       kafka.FirstOffset,
	})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := untilStdinEnds()
	go func() {
		<-ended
		cancel()
	}()
	for ctx.Err() == nil {
		generation, err := consumer.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				tell(answer{"event": "uncommitted", "error": err.Error()})
			}
			continue
		}
		partitions := []int{}
		for _, share := range generation.Assignments[topic] {
			partitions = append(partitions, share.ID)
		}
		sort.Ints(partitions)
		tell(answer{"event": "assigned", "partitions": partitions})
		for _, share := range generation.Assignments[topic] {
			generation.Start(func(ctx context.Context) {
				follow(ctx, generation, topic, share)
			})
		}
	}
	// It leaves when all its readers have ended.
	must(consumer.Close())
	tell(answer{"event": "left"})
}

// follow tells what it reads of one partition, and commits it, as long as a generation lasts.
func follow(ctx context.Context, generation *kafka.Generation, topic string, share kafka.PartitionAssignment) {
	part := reader(topic, share.ID, share.Offset)
	defer part.Close()
	for {
		found, err := part.ReadMessage(ctx)
		if err != nil {
			return
		}
		event := told(found)
		tell(answer{
			"event": "record", "partition": event.Partition, "offset": event.Offset, "timestamp": event.Timestamp,
			"key": event.Key, "value": event.Value, "headers": event.Headers,
		})
		next := map[int]int64{share.ID: found.Offset + 1}
		if err := generation.CommitOffsets(map[string]map[int]int64{topic: next}); err != nil {
			tell(answer{"event": "uncommitted", "error": err.Error()})
			return
		}
		tell(answer{"event": "committed", "offsets": next})
	}
}
