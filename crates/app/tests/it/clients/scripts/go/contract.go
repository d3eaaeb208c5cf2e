// What the Go clients share: reading commands, telling events. See `../../contract.rs`.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// record is one record in the contract's form.
type record struct {
	Partition int32        `json:"partition"`
	Offset    int64        `json:"offset"`
	Timestamp int64        `json:"timestamp"`
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   [][2]*string `json:"headers"`
}

// command is one line of what an agent is told.
type command struct {
	Do          string          `json:"do"`
	Topic       string          `json:"topic"`
	Group       string          `json:"group"`
	Partitions  json.RawMessage `json:"partitions"`
	Compression string          `json:"compression"`
	Acks        string          `json:"acks"`
	Idempotent  bool            `json:"idempotent"`
	Isolation   string          `json:"isolation"`
	Count       int             `json:"count"`
	Id          string          `json:"id"`
	End         string          `json:"end"`
	Records     []record        `json:"records"`
}

// count returns `partitions` where it is a number.
func (c command) count() (n int32) {
	must(json.Unmarshal(c.Partitions, &n))
	return n
}

// list returns `partitions` where it is a list.
func (c command) list() (all []int32) {
	must(json.Unmarshal(c.Partitions, &all))
	return all
}

type answer map[string]any

var out sync.Mutex

// tell prints one line of JSON with the machine's monotonic time in microseconds.
func tell(event answer) {
	out.Lock()
	defer out.Unlock()
	event["at"] = monotonic()
	line, err := json.Marshal(event)
	must(err)
	fmt.Println(string(line))
}

func monotonic() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	_, _, code := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	if code != 0 {
		panic(code)
	}
	return now.Nano() / 1000
}

// serve carries out one command a line until stdin ends.
func serve(commands map[string]func(command) (answer, error)) {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return
		}
		must(err)
		var asked command
		must(json.Unmarshal(line, &asked))
		told, err := commands[asked.Do](asked)
		if err != nil {
			told = answer{"error": err.Error()}
		}
		if told == nil {
			told = answer{}
		}
		tell(told)
	}
}

// untilStdinEnds is closed when the test closes stdin.
func untilStdinEnds() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	return ended
}

func fromHex(text *string) []byte {
	if text == nil {
		return nil
	}
	bytes, err := hex.DecodeString(*text)
	must(err)
	return bytes
}

func toHex(bytes []byte) *string {
	if bytes == nil {
		return nil
	}
	text := hex.EncodeToString(bytes)
	return &text
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
