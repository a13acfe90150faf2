package dataplane

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// sink is a connection that looks at what is written.
type sink struct {
	net.Conn
	wrote func()
}

func (s sink) Write(p []byte) (int, error) {
	s.wrote()
	return len(p), nil
}

func (sink) SetReadDeadline(time.Time) error { return nil }

// Who has got an answer finds it in the counters.
func TestBytesAreCountedBeforeTheyAreSent(t *testing.T) {
	vs := &virtualServer{plane: &Plane{clock: clock.RealClock{}}}
	client := &session{listener: &listener{vs: vs}}
	member := &session{listener: client.listener, parent: client, pool: &pool{}, member: &member{}}
	toClient := &clientConn{session: client, Conn: sink{wrote: func() {
		if c := vs.counters.counts(); c.BytesOut != 6 || c.PacketsOut != 1 {
			t.Errorf("while the client is answered: %+v", c)
		}
	}}}
	toMember := &memberConn{session: member, Conn: sink{wrote: func() {
		if c := member.member.counters.counts(); c.BytesIn != 6 || c.PacketsIn != 1 {
			t.Errorf("while the member is asked: %+v", c)
		}
	}}}
	for _, conn := range []net.Conn{toClient, toMember} {
		if _, err := io.WriteString(conn, "hello\n"); err != nil {
			t.Error(err)
		}
	}
}

// The time for an answer begins with the request, not with the answer before.
func TestMembersHaveTheWholeTimeForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = time.Minute
		near, far := net.Pipe()
		defer far.Close()
		conn := &memberConn{Conn: near, session: &session{parent: &session{}}, timeout: timeout}
		defer conn.Close()
		go func() { // the member takes a while for each answer
			buf := make([]byte, 16)
			for {
				n, err := far.Read(buf)
				if err != nil {
					return
				}
				time.Sleep(timeout - time.Second)
				far.Write(buf[:n])
			}
		}()
		answers := make(chan error)
		go func() { // as http.Transport does, it reads all the time
			defer close(answers)
			for buf := make([]byte, 16); ; {
				if _, err := conn.Read(buf); err != nil {
					answers <- err
					return
				}
				answers <- nil
			}
		}()
		for range 3 {
			time.Sleep(timeout - time.Second) // between requests
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if err := <-answers; err != nil {
				t.Fatal(err)
			}
		}
		conn.Close()
		if err := <-answers; err == nil {
			t.Error("a closed connection answers")
		}
	})
}
