//go:build linux

package nftables

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Statements, whose text is nft's language, and the expressions that the kernel runs for them. By convention keys are loaded from register
// keyRegister on, and data from dataRegister on: registers of four bytes, enough for an IPv6 address and what goes with
// it on either side.
const (
	keyRegister  = unix.NFT_REG32_00
	dataRegister = unix.NFT_REG32_08
)

// What x/sys/unix does not have of nftables.
const (
	opDelete        = 2 // NFT_DYNSET_OP_DELETE
	objectCtTimeout = 7 // NFT_OBJECT_CT_TIMEOUT
)

// originalAddress loads an address of the packet that began the connection. The library has it for both families in one,
// which nft cannot print.
type originalAddress struct {
	key      uint32 // NFT_CT_SRC_IP and its like
	register uint32
}

// key is something loaded into registers, from keyRegister on unless said otherwise.
type key struct {
	text  string
	exprs []any
	next  uint32 // the first register that is free behind it
}

// service of a packet from a client: protocol, address and port that it came to.
func (f family) service() key {
	port := keyRegister + 1 + f.bytes/4
	return key{
		text: fmt.Sprintf("meta l4proto . %s daddr . th dport", f.name),
		exprs: []any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: keyRegister},
			f.load(f.dest, keyRegister+1),
			&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		},
		next: port + 1,
	}
}

// originalService is that of a packet's connection.
func (f family) originalService() key {
	port := keyRegister + 1 + f.bytes/4
	return key{
		text: fmt.Sprintf("meta l4proto . ct original %s daddr . ct original proto-dst", f.name),
		exprs: []any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: keyRegister},
			originalAddress{f.ctDest, keyRegister + 1},
			&expr.Ct{Key: expr.CtKeyPROTODST, Register: port},
		},
		next: port + 1,
	}
}

func (f family) load(offset, register uint32) any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.bytes}
}

func (f family) sourceAddress() key {
	return key{f.name + " saddr", []any{f.load(f.source, keyRegister)}, keyRegister + f.bytes/4}
}

func (f family) destAddress() key {
	return key{f.name + " daddr", []any{f.load(f.dest, keyRegister)}, keyRegister + f.bytes/4}
}

// client is the source address of a packet's connection.
func (f family) client() key {
	return key{fmt.Sprintf("ct original %s saddr", f.name), []any{originalAddress{f.ctSource, keyRegister}}, keyRegister + f.bytes/4}
}

// mark of the packet's connection: its member.
func mark() key {
	return key{"ct mark", []any{&expr.Ct{Key: expr.CtKeyMARK, Register: keyRegister}}, keyRegister + 1}
}

// inTurn counts modulo n.
func inTurn(n int) key {
	return key{fmt.Sprintf("numgen inc mod %d", n), []any{
		&expr.Numgen{Register: keyRegister, Modulus: uint32(n), Type: unix.NFT_NG_INCREMENTAL},
	}, keyRegister + 1}
}

// hashed is a hash of the client's address modulo n.
func (f family) hashed(n int) key {
	return key{fmt.Sprintf("jhash %s saddr mod %d seed 0x1", f.name, n), []any{
		f.load(f.source, keyRegister),
		&expr.Hash{SourceRegister: keyRegister, DestRegister: keyRegister, Length: f.bytes, Modulus: uint32(n), Seed: 1, Type: expr.HashTypeJenkins},
	}, keyRegister + 1}
}

// and appends a key behind another.
func (k key) and(mark key) key {
	k.text += " . " + mark.text
	k.exprs = append(k.exprs, &expr.Ct{Key: expr.CtKeyMARK, Register: k.next})
	k.next++
	return k
}

// in matches members of a set.
func in(k key, set string) statement {
	return statement{fmt.Sprintf("%s @%s", k.text, set), append(k.exprs, &expr.Lookup{SourceRegister: keyRegister, SetName: set})}
}

// notIn matches the others.
func notIn(k key, set string) statement {
	return statement{fmt.Sprintf("%s != @%s", k.text, set), append(k.exprs, &expr.Lookup{SourceRegister: keyRegister, SetName: set, Invert: true})}
}

// is matches a number.
func is(k key, n uint32) statement {
	return statement{fmt.Sprintf("%s == %d", k.text, n), append(k.exprs,
		&expr.Cmp{Op: expr.CmpOpEq, Register: keyRegister, Data: binaryutil.NativeEndian.PutUint32(n)})}
}

// verdictOf goes where a map says; when it says nothing, the next rule follows.
func verdictOf(k key, verdicts string) statement {
	return statement{fmt.Sprintf("%s vmap @%s", k.text, verdicts),
		append(k.exprs, &expr.Lookup{SourceRegister: keyRegister, SetName: verdicts, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})}
}

// setMark gives the connection the mark that a map has; when it has none, the next rule follows.
func setMark(k key, marks string) statement {
	return statement{fmt.Sprintf("ct mark set %s map @%s", k.text, marks), append(k.exprs,
		&expr.Lookup{SourceRegister: keyRegister, SetName: marks, IsDestRegSet: true, DestRegister: dataRegister},
		&expr.Ct{Key: expr.CtKeyMARK, Register: dataRegister, SourceRegister: true})}
}

// translate sends the connection to the address, and port, that a map has for its mark. Without a port there, it is
// the one that another map has for the service.
func (f family) translate(addresses, ports string) statement {
	port := dataRegister + f.bytes/4
	to := mark()
	text := fmt.Sprintf("dnat to %s map @%s", to.text, addresses)
	exprs := append(to.exprs, &expr.Lookup{SourceRegister: keyRegister, SetName: addresses, IsDestRegSet: true, DestRegister: dataRegister})
	if ports != "" {
		service := f.service()
		text += fmt.Sprintf(" : %s map @%s", service.text, ports)
		exprs = append(append(exprs, service.exprs...),
			&expr.Lookup{SourceRegister: keyRegister, SetName: ports, IsDestRegSet: true, DestRegister: port})
	}
	return statement{text, append(exprs,
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.number), RegAddrMin: dataRegister, RegProtoMin: port})}
}

// masquerade makes the connection come from the address that the host has towards the member.
func masquerade() statement { return statement{"masquerade", []any{&expr.Masq{}}} }

// sourceNAT makes it come from an address between two.
func (f family) sourceNAT(from, to netip.Addr) statement {
	text := "snat to " + from.String()
	nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.number), RegAddrMin: dataRegister}
	exprs := []any{&expr.Immediate{Register: dataRegister, Data: from.AsSlice()}}
	if to != from {
		text += "-" + to.String()
		nat.RegAddrMax = dataRegister + f.bytes/4
		exprs = append(exprs, &expr.Immediate{Register: nat.RegAddrMax, Data: to.AsSlice()})
	}
	return statement{text, append(exprs, nat)}
}

// count counts packets and bytes by key.
func count(k key, set string) statement {
	return statement{fmt.Sprintf("update @%s { %s counter }", set, k.text), append(k.exprs,
		&expr.Dynset{SrcRegKey: keyRegister, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{&expr.Counter{}}})}
}

// remember puts the connection's mark into a map, or renews the time-out of the one that is there.
func remember(k key, marks string, timeout time.Duration) statement {
	return statement{fmt.Sprintf("update @%s { %s timeout %v : ct mark }", marks, k.text, timeout), append(k.exprs,
		&expr.Ct{Key: expr.CtKeyMARK, Register: dataRegister},
		&expr.Dynset{SrcRegKey: keyRegister, SrcRegData: dataRegister, SetName: marks, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout})}
}

// forget removes what remember put.
func forget(k key, marks string) statement {
	return statement{fmt.Sprintf("delete @%s { %s : ct mark }", marks, k.text), append(k.exprs,
		&expr.Ct{Key: expr.CtKeyMARK, Register: dataRegister},
		&expr.Dynset{SrcRegKey: keyRegister, SrcRegData: dataRegister, SetName: marks, Operation: opDelete})}
}

// setIdleTime gives the connection a time-out.
func setIdleTime(name string) statement {
	return statement{"ct timeout set " + name, []any{&expr.Objref{Type: objectCtTimeout, Name: name}}}
}

// Limits, which match what is over them.

func rateOver(perSecond int) statement {
	return statement{fmt.Sprintf("limit rate over %d/second burst %d packets", perSecond, perSecond), []any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(perSecond), Unit: expr.LimitTimeSecond, Burst: uint32(perSecond), Over: true},
	}}
}

func connectionsOver(n int) statement {
	return statement{fmt.Sprintf("ct count over %d", n), []any{&expr.Connlimit{Count: uint32(n), Flags: expr.NFT_CONNLIMIT_F_INV}}}
}

// Matches.

func protocolIs(name string, number byte) statement {
	return statement{"meta l4proto " + name, []any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: keyRegister},
		&expr.Cmp{Op: expr.CmpOpEq, Register: keyRegister, Data: []byte{number}},
	}}
}

// midStream matches TCP packets that do not begin a connection.
func midStream() statement {
	const flags, syn = 0x17, 0x02 // of FIN, SYN, RST and ACK
	return statement{"tcp flags & (fin | syn | rst | ack) != syn", []any{
		&expr.Payload{DestRegister: keyRegister, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: keyRegister, DestRegister: keyRegister, Len: 1, Mask: []byte{flags}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: keyRegister, Data: []byte{syn}},
	}}
}

func stateNew() statement {
	return statement{"ct state new", []any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: keyRegister},
		&expr.Bitwise{
			SourceRegister: keyRegister, DestRegister: keyRegister, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: keyRegister, Data: make([]byte, 4)},
	}}
}

func directionIs(name string, number byte) statement {
	return statement{"ct direction " + name, []any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: keyRegister},
		&expr.Cmp{Op: expr.CmpOpEq, Register: keyRegister, Data: []byte{number}},
	}}
}

// markIsOurs matches connections to members.
func markIsOurs() statement {
	return statement{fmt.Sprintf("ct mark & %#x == %#x", markMask, markOurs), []any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: keyRegister},
		&expr.Bitwise{
			SourceRegister: keyRegister, DestRegister: keyRegister, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(markMask), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: keyRegister, Data: binaryutil.NativeEndian.PutUint32(markOurs)},
	}}
}

// Verdicts.

func accept() statement {
	return statement{"accept", []any{&expr.Verdict{Kind: expr.VerdictAccept}}}
}

func drop() statement {
	return statement{"drop", []any{&expr.Verdict{Kind: expr.VerdictDrop}}}
}

func goTo(chain string) statement {
	return statement{"goto " + chain, []any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

// jump goes to a chain and comes back.
func jump(chain string) statement {
	return statement{"jump " + chain, []any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

func reset() statement {
	return statement{"reject with tcp reset", []any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}}
}

// unreachable answers that nobody serves the port.
func (f family) unreachable() statement {
	code := uint8(3)
	if f.bytes == 16 {
		code = 4
	}
	return statement{"reject", []any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}}
}
