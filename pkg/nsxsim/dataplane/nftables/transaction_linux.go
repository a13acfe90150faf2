package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A transaction is one batch of messages to the kernel, which carries all of them out at one moment, or none.
//
// github.com/google/nftables gives the expressions. Its own batches ask for an echo and an acknowledgement of each rule,
// which does not hold for thousands of them: the socket's buffer overflows.
type transaction struct {
	messages []message
	err      error
}

type message struct {
	what string // for errors
	data []byte // with its header, but for the sequence number
}

// bufferSize is asked for on both sides of the socket. More than the system's limit takes CAP_NET_ADMIN in the initial
// user namespace.
const bufferSize = 64 << 20

// elementsPerMessage keeps an attribute below its 64 KiB.
const elementsPerMessage = 256

// add appends a message.
func (t *transaction) add(kind uint16, flags netlink.HeaderFlags, family uint8, what string, attributes func(*netlink.AttributeEncoder)) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	attributes(ae)
	body, err := ae.Encode()
	t.err = errors.Join(t.err, err)
	t.messages = append(t.messages, message{what, encode(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, family, 0, body)})
}

// table makes the table, if it is not there.
func (t *transaction) table(f family) {
	t.add(unix.NFT_MSG_NEWTABLE, netlink.Create, f.number, "table", func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, tableName)
	})
}

// noTable deletes the table, which must be there.
func (t *transaction) noTable(f family) {
	t.add(unix.NFT_MSG_DELTABLE, 0, f.number, "table to delete", func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, tableName)
	})
}

// change makes a change.
func (t *transaction) change(c tableChange) {
	f := c.table.family
	for _, name := range c.newIdle {
		t.idleTime(f, name, c.table.idle[name])
	}
	for _, s := range c.newSets {
		t.set(f, s)
	}
	for _, ch := range c.newChains {
		t.chain(f, ch)
	}
	for _, e := range c.removed {
		t.elements(f, unix.NFT_MSG_DELSETELEM, 0, e)
	}
	for _, e := range c.data {
		t.elements(f, unix.NFT_MSG_NEWSETELEM, netlink.Create, e)
	}
	for _, ch := range c.rules {
		t.rules(f, ch, slices.Contains(c.newChains, ch))
	}
	for _, e := range c.verdicts {
		t.elements(f, unix.NFT_MSG_NEWSETELEM, netlink.Create, e)
	}
	for _, ch := range c.oldChains {
		t.noRules(f, ch)
	}
	for _, ch := range c.oldChains {
		t.add(unix.NFT_MSG_DELCHAIN, 0, f.number, "chain to delete "+ch.name, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_CHAIN_TABLE, tableName)
			ae.String(unix.NFTA_CHAIN_NAME, ch.name)
		})
	}
	for _, s := range c.oldSets {
		t.add(unix.NFT_MSG_DELSET, 0, f.number, "set to delete "+s.name, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_SET_TABLE, tableName)
			ae.String(unix.NFTA_SET_NAME, s.name)
		})
	}
	for _, name := range c.oldIdle {
		t.noIdleTime(f, name)
	}
}

// Attributes of time-outs that x/sys/unix does not have.
const (
	ctTimeoutProtocol  = 2
	ctTimeoutData      = 3
	timeoutEstablished = 3
	timeoutUnreplied   = 1
	timeoutReplied     = 2
)

func (t *transaction) idleTime(f family, name string, i idleTime) {
	t.add(unix.NFT_MSG_NEWOBJ, netlink.Create, f.number, "ct timeout "+name, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_OBJ_TABLE, tableName)
		ae.String(unix.NFTA_OBJ_NAME, name)
		ae.Uint32(unix.NFTA_OBJ_TYPE, objectCtTimeout)
		ae.Nested(unix.NFTA_OBJ_DATA, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(ctTimeoutProtocol, i.protocol)
			ae.Nested(ctTimeoutData, func(ae *netlink.AttributeEncoder) error {
				if i.protocol == unix.IPPROTO_TCP {
					ae.Uint32(timeoutEstablished, i.seconds)
				} else {
					ae.Uint32(timeoutUnreplied, i.seconds)
					ae.Uint32(timeoutReplied, i.seconds)
				}
				return nil
			})
			return nil
		})
	})
}

func (t *transaction) noIdleTime(f family, name string) {
	t.add(unix.NFT_MSG_DELOBJ, 0, f.number, "ct timeout to delete "+name, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_OBJ_TABLE, tableName)
		ae.String(unix.NFTA_OBJ_NAME, name)
		ae.Uint32(unix.NFTA_OBJ_TYPE, objectCtTimeout)
	})
}

func (t *transaction) set(f family, s *set) {
	t.add(unix.NFT_MSG_NEWSET, netlink.Create, f.number, "set "+s.name, func(ae *netlink.AttributeEncoder) {
		var flags uint32
		for flag, is := range map[uint32]bool{
			unix.NFT_SET_INTERVAL: s.interval, unix.NFT_SET_MAP: s.verdicts || s.data != nil, unix.NFT_SET_EVAL: s.dynamic, unix.NFT_SET_TIMEOUT: s.timeouts,
		} {
			if is {
				flags |= flag
			}
		}
		ae.String(unix.NFTA_SET_TABLE, tableName)
		ae.String(unix.NFTA_SET_NAME, s.name)
		ae.Uint32(unix.NFTA_SET_ID, uint32(len(t.messages)+1))
		ae.Uint32(unix.NFTA_SET_FLAGS, flags)
		ae.Uint32(unix.NFTA_SET_KEY_TYPE, s.key.number())
		ae.Uint32(unix.NFTA_SET_KEY_LEN, s.key.length())
		switch {
		case s.verdicts:
			ae.Uint32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		case s.data != nil:
			ae.Uint32(unix.NFTA_SET_DATA_TYPE, s.data.number())
			ae.Uint32(unix.NFTA_SET_DATA_LEN, s.data.length())
		}
		ae.Bytes(unix.NFTA_SET_USERDATA, append(byteOrder(0, s.key), byteOrder(1, s.data)...))
		if s.dynamic {
			ae.Nested(unix.NFTA_SET_DESC, func(ae *netlink.AttributeEncoder) error {
				ae.Uint32(unix.NFTA_SET_DESC_SIZE, dynamicSize)
				return nil
			})
		}
	})
}

// byteOrder tells nft how to print keys (kind 0) or data (kind 1). It is nothing to the kernel.
func byteOrder(kind byte, of concatenation) []byte {
	const host, network = 1, 2
	order := uint32(network)
	if len(of) == 1 && of[0] == markType {
		order = host
	}
	return binary.NativeEndian.AppendUint32([]byte{kind, 4}, order)
}

func (t *transaction) chain(f family, c *chain) {
	t.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, f.number, "chain "+c.name, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, tableName)
		ae.String(unix.NFTA_CHAIN_NAME, c.name)
		if c.base == nil {
			return
		}
		ae.Nested(unix.NFTA_CHAIN_HOOK, func(ae *netlink.AttributeEncoder) error {
			ae.Uint32(unix.NFTA_HOOK_HOOKNUM, c.base.number)
			ae.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.base.priority))
			return nil
		})
		ae.String(unix.NFTA_CHAIN_TYPE, c.base.kind)
	})
}

// rules replaces all rules of a chain.
func (t *transaction) rules(f family, c *chain, isNew bool) {
	if !isNew {
		t.noRules(f, c)
	}
	for _, r := range c.rules {
		t.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, f.number, fmt.Sprintf("rule of chain %s: %v", c.name, r), func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_RULE_TABLE, tableName)
			ae.String(unix.NFTA_RULE_CHAIN, c.name)
			ae.Nested(unix.NFTA_RULE_EXPRESSIONS, func(ae *netlink.AttributeEncoder) error {
				for _, s := range r {
					for _, e := range s.exprs {
						if err := encodeExpression(ae, f, e); err != nil {
							return fmt.Errorf("%s: %w", s.text, err)
						}
					}
				}
				return nil
			})
		})
	}
}

func encodeExpression(ae *netlink.AttributeEncoder, f family, e any) error {
	switch e := e.(type) {
	case originalAddress:
		ae.Nested(unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) error {
			ae.String(unix.NFTA_EXPR_NAME, "ct")
			ae.Nested(unix.NFTA_EXPR_DATA, func(ae *netlink.AttributeEncoder) error {
				ae.Uint32(unix.NFTA_CT_KEY, e.key)
				ae.Uint32(unix.NFTA_CT_DREG, e.register)
				ae.Uint8(unix.NFTA_CT_DIRECTION, 0)
				return nil
			})
			return nil
		})
	case expr.Any:
		b, err := expr.Marshal(f.number, e)
		if err != nil {
			return err
		}
		ae.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, b)
	}
	return nil
}

func (t *transaction) noRules(f family, c *chain) {
	t.add(unix.NFT_MSG_DELRULE, 0, f.number, "rules to delete of chain "+c.name, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, tableName)
		ae.String(unix.NFTA_RULE_CHAIN, c.name)
	})
}

// elements adds or deletes elements of a set.
func (t *transaction) elements(f family, kind uint16, flags netlink.HeaderFlags, all setElements) {
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(all.elements)), elementsPerMessage) {
		t.add(kind, flags, f.number, "elements of "+all.set.name, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
			ae.String(unix.NFTA_SET_ELEM_LIST_SET, all.set.name)
			ae.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(ae *netlink.AttributeEncoder) error {
				for _, key := range keys {
					encodeElement(ae, all.set, key, all.elements[key])
				}
				return nil
			})
		})
	}
}

func encodeElement(ae *netlink.AttributeEncoder, s *set, key string, e element) {
	value := func(kind uint16, bytes string) func(*netlink.AttributeEncoder) error {
		return func(ae *netlink.AttributeEncoder) error {
			ae.Nested(kind, func(ae *netlink.AttributeEncoder) error {
				ae.Bytes(unix.NFTA_DATA_VALUE, []byte(bytes))
				return nil
			})
			return nil
		}
	}
	ae.Nested(unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) error {
		if err := value(unix.NFTA_SET_ELEM_KEY, key)(ae); err != nil {
			return err
		}
		switch {
		case s.verdicts:
			ae.Nested(unix.NFTA_SET_ELEM_DATA, func(ae *netlink.AttributeEncoder) error {
				ae.Nested(unix.NFTA_DATA_VERDICT, func(ae *netlink.AttributeEncoder) error {
					ae.Int32(unix.NFTA_VERDICT_CODE, unix.NFT_GOTO)
					ae.String(unix.NFTA_VERDICT_CHAIN, e.goTo)
					return nil
				})
				return nil
			})
		case s.data != nil:
			return value(unix.NFTA_SET_ELEM_DATA, e.data)(ae)
		}
		return nil
	})
	if end, more := after(e.end); s.interval && more {
		ae.Nested(unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) error {
			ae.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			return value(unix.NFTA_SET_ELEM_KEY, end)(ae)
		})
	}
}

// after gives the address that follows, if there is one.
func after(address string) (string, bool) {
	next := []byte(address)
	for i := len(next) - 1; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			return string(next), true
		}
	}
	return "", false
}

// commit sends the messages. Those of a transaction too big for the socket's buffer are sent in several, each complete
// in itself.
func (t *transaction) commit() error {
	if t.err != nil {
		return fmt.Errorf("encoding a change of nftables: %w", t.err)
	}
	if len(t.messages) == 0 {
		return nil
	}
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.close()
	enlarge(s.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	enlarge(s.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	limit, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return fmt.Errorf("size of a netlink socket's buffer: %w", err)
	}
	limit -= 1 << 10 // what the kernel and the batch's frame take
	for rest := t.messages; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && (n == 0 || size+len(rest[n].data) <= limit) {
			size += aligned(len(rest[n].data))
			n++
		}
		if err := s.transact(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func enlarge(fd, force, ask int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bufferSize) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, bufferSize) // as much as the system's limit allows
	}
}

// transact sends messages as one batch, and reads what the kernel has to say: errors, and an acknowledgement of the last
// message.
func (s *socket) transact(messages []message) error {
	batch := encode(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i, m := range messages {
		at := len(batch)
		batch = append(batch, m.data...)
		binary.NativeEndian.PutUint32(batch[at+8:], uint32(i+1))
		if i == len(messages)-1 {
			binary.NativeEndian.PutUint16(batch[at+6:], binary.NativeEndian.Uint16(batch[at+6:])|uint16(netlink.Acknowledge))
		}
		batch = append(batch, make([]byte, aligned(len(batch))-len(batch))...)
	}
	batch = append(batch, encode(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil)...)
	if err := s.send(batch); err != nil {
		return fmt.Errorf("sending %d messages to nftables: %w", len(messages), err)
	}
	acknowledged := false
	for {
		err := s.receive(unix.MSG_DONTWAIT, func(kind uint16, sequence int, body []byte) error {
			if kind != unix.NLMSG_ERROR {
				return nil
			}
			if err := errorIn(body); err != nil {
				what := "the transaction"
				if 0 < sequence && sequence <= len(messages) {
					what = messages[sequence-1].what
				}
				return fmt.Errorf("nftables refuses %s: %w", what, err)
			}
			acknowledged = acknowledged || sequence == len(messages)
			return nil
		})
		switch {
		case errors.Is(err, unix.EAGAIN) && acknowledged:
			return nil
		case err != nil:
			return err
		}
	}
}
