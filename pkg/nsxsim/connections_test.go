package nsxsim

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A connection that comes while the server is closing is closed, too, as are those that came before.
func TestNoConnectionOutlivesTheServer(t *testing.T) {
	srv := &Server{unused: map[net.Conn]struct{}{}}
	var clients []net.Conn
	dial := func() {
		client, server := net.Pipe()
		t.Cleanup(func() { client.Close() })
		clients = append(clients, client)
		srv.connState(server, http.StateNew)
	}
	dial()
	srv.closeUnused()
	dial()
	for i, c := range clients {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}
