package dataplane

import (
	"net"
	"sync"
	"time"
)

// oneConn is a listener that hands out one connection and is closed with it.
type oneConn struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// clientConn is a client's connection whose bytes are counted: those to send before they are, so that who has an answer
// finds it counted.
type clientConn struct {
	net.Conn
	session *session
}

func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.session.touch()
	c.session.countIn(n)
	return n, err
}

func (c *clientConn) Write(p []byte) (int, error) {
	c.session.touch()
	c.session.countOut(len(p))
	return c.Conn.Write(p)
}

// CloseWrite lets net/http end a connection so that the client can read the last answer.
func (c *clientConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// memberConn is a connection to a member, which must send something in time, from the request on, and whose bytes are
// counted.
type memberConn struct {
	net.Conn
	session *session
	timeout time.Duration
}

func (c *memberConn) Read(p []byte) (int, error) {
	c.await()
	n, err := c.Conn.Read(p)
	c.session.countOut(n)
	return n, err
}

func (c *memberConn) Write(p []byte) (int, error) {
	c.await() // also for a Read that waits since the answer before
	c.session.countIn(len(p))
	return c.Conn.Write(p)
}

// await lets the time begin in which the member must send something.
func (c *memberConn) await() { c.Conn.SetReadDeadline(time.Now().Add(c.timeout)) }
