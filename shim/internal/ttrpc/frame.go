// Package ttrpc speaks containerd's ttrpc, unary calls only: a server for the
// shim's services and a client for publishing events (PROTOCOL.md of
// github.com/containerd/ttrpc, version 1.0).
//
//	data length (32) | stream id (32) | type (8) | flags (8) | data
//
// It uses plain descriptors with Go's poller instead of package net, whose
// resolver and dialers a shim would carry for nothing.
package ttrpc

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/gantryd/gantry/internal/wire"
)

const (
	headerLen = 10
	maxData   = 4 << 20 // PROTOCOL.md, "Message Frame"

	typeRequest  = 1
	typeResponse = 2
)

// frame is one message on a connection.
type frame struct {
	stream uint32
	typ    byte
	data   []byte
}

func readFrame(r *bufio.Reader) (frame, error) {
	h := make([]byte, headerLen)
	if _, err := io.ReadFull(r, h); err != nil {
		return frame{}, err
	}
	size, err := frameSize(h)
	if err != nil {
		return frame{}, err
	}
	b := append(h, make([]byte, size-headerLen)...)
	if _, err := io.ReadFull(r, b[headerLen:]); err != nil {
		return frame{}, fmt.Errorf("read frame: %w", err)
	}
	return frameOf(b), nil
}

// frameSize is the size of the frame that b begins with, 0 where b is too short to
// tell.
func frameSize(b []byte) (int, error) {
	if len(b) < headerLen {
		return 0, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxData {
		return 0, fmt.Errorf("read frame: %d bytes, at most %d", n, maxData)
	}
	return headerLen + int(n), nil
}

// frameOf is the frame that b is, and shares b.
func frameOf(b []byte) frame {
	return frame{stream: binary.BigEndian.Uint32(b[4:8]), typ: b[8], data: b[headerLen:]}
}

// appendFrame encodes m as one frame behind b.
func appendFrame(b []byte, stream uint32, typ byte, m wire.Message) []byte {
	start := len(b)
	b = append(b, make([]byte, headerLen)...)
	b = wire.Append(b, m)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-headerLen))
	binary.BigEndian.PutUint32(b[start+4:], stream)
	b[start+8] = typ
	return b
}

// request is ttrpc.Request.
type request struct {
	service  string
	method   string
	payload  []byte
	timeout  int64 // nanoseconds, 0 is none
	metadata []keyValue
}

func (m *request) Fields(c *wire.Codec) {
	c.String(1, &m.service)
	c.String(2, &m.method)
	c.Bytes(3, &m.payload)
	wire.Uint(c, 4, &m.timeout)
	wire.Repeated(c, 5, &m.metadata)
}

// keyValue is ttrpc.KeyValue.
type keyValue struct{ key, value string }

func (m *keyValue) Fields(c *wire.Codec) {
	c.String(1, &m.key)
	c.String(2, &m.value)
}

// response is ttrpc.Response.
type response struct {
	status  *Status
	payload []byte
}

func (m *response) Fields(c *wire.Codec) {
	wire.Optional(c, 1, &m.status)
	c.Bytes(2, &m.payload)
}

// Status is google.rpc.Status without details: how a call failed.
type Status struct {
	Code    int32 // of google.rpc.Code
	Message string
}

// Fields lists the fields of google.rpc.Status.
func (m *Status) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.Code)
	c.String(2, &m.Message)
}

func (m *Status) Error() string { return m.Message }
