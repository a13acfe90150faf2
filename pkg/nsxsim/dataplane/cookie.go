package dataplane

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// garbler encrypts what cookies tell.
type garbler struct{ cipher.AEAD }

func newGarbler() garbler {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key's length is right
	}
	sealed, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // it is AES
	}
	return garbler{sealed}
}

func (g garbler) hide(text string) string {
	return base64.RawURLEncoding.EncodeToString(g.Seal(nil, nil, []byte(text), nil))
}

// reveal undoes hide; "": it is none of ours.
func (g garbler) reveal(text string) string {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	plain, err := g.Open(nil, nil, sealed, nil)
	if err != nil {
		return ""
	}
	return string(plain)
}

// crumb is what a cookie of persistence says.
type crumb struct {
	member      netip.AddrPort
	first, last time.Time // when it was first set, and last seen in a request
}

// prefixEnd stands between the crumb and the member's own value, in mode PREFIX.
const prefixEnd = "~"

// value is the crumb as a cookie's value.
func (c *CookiePersistence) value(g garbler, k crumb) string {
	text := k.member.String()
	if c.MaxIdle > 0 || c.MaxLife > 0 {
		text = fmt.Sprintf("%s|%d|%d", text, k.first.Unix(), k.last.Unix())
	}
	if c.Garble {
		return g.hide(text)
	}
	return text
}

// read gives the crumb in a cookie's value, if it is one and not too old.
func (c *CookiePersistence) read(g garbler, value string, now time.Time) (crumb, bool) {
	if c.Garble {
		value = g.reveal(value)
	}
	parts := strings.Split(value, "|")
	member, err := netip.ParseAddrPort(parts[0])
	if err != nil {
		return crumb{}, false
	}
	k := crumb{member: member}
	if c.MaxIdle == 0 && c.MaxLife == 0 {
		return k, true
	}
	if len(parts) != 3 {
		return crumb{}, false
	}
	first, err1 := strconv.ParseInt(parts[1], 10, 64)
	last, err2 := strconv.ParseInt(parts[2], 10, 64)
	if err1 != nil || err2 != nil {
		return crumb{}, false
	}
	k.first, k.last = time.Unix(first, 0), time.Unix(last, 0)
	fresh := (c.MaxIdle == 0 || now.Sub(k.last) <= c.MaxIdle) && (c.MaxLife == 0 || now.Sub(k.first) <= c.MaxLife)
	return k, fresh
}

// take reads the crumb of a request, and gives the member's cookie its own value back, in mode PREFIX.
func (c *CookiePersistence) take(g garbler, r *http.Request, now time.Time) (crumb, bool) {
	cookie, err := r.Cookie(c.Name)
	if err != nil {
		return crumb{}, false
	}
	value := cookie.Value
	if c.Mode == CookiePrefix {
		var own string
		var found bool
		if value, own, found = strings.Cut(value, prefixEnd); !found {
			return crumb{}, false
		}
		replaceCookie(r, c.Name, own)
	}
	return c.read(g, value, now)
}

// replaceCookie sets the value of a request's cookie.
func replaceCookie(r *http.Request, name, value string) {
	cookies := r.Cookies()
	r.Header.Del("Cookie")
	for _, c := range cookies {
		if c.Name == name {
			c.Value = value
		}
		r.AddCookie(c)
	}
}

// leave puts the crumb into a response. In mode INSERT had tells what the request brought.
func (c *CookiePersistence) leave(g garbler, response http.Header, had *crumb, member netip.AddrPort, now time.Time) {
	k := crumb{member: member, first: now, last: now}
	if c.Mode == CookieInsert {
		if had != nil && had.member == member {
			if c.MaxIdle == 0 {
				return // the client has what it needs
			}
			k.first = had.first
		}
		cookie := http.Cookie{Name: c.Name, Value: c.value(g, k), Domain: c.Domain, Path: c.Path, HttpOnly: c.HTTPOnly, Secure: c.Secure,
			MaxAge: int(c.MaxAge / time.Second)}
		response.Add("Set-Cookie", cookie.String())
		return
	}
	set := response["Set-Cookie"]
	for i, line := range set {
		cookie, err := http.ParseSetCookie(line)
		if err != nil || cookie.Name != c.Name {
			continue
		}
		own := cookie.Value
		cookie.Value = c.value(g, k)
		if c.Mode == CookiePrefix {
			cookie.Value += prefixEnd + own
		}
		set[i] = cookie.String()
	}
}

func (c *CookiePersistence) check() error {
	switch {
	case c == nil:
		return nil
	case c.Name == "":
		return fmt.Errorf("cookie without a name: %w", ErrInvalid)
	case !slices.Contains([]CookieMode{CookieInsert, CookiePrefix, CookieRewrite}, c.Mode):
		return fmt.Errorf("cookie mode %q: %w", c.Mode, ErrInvalid)
	case c.MaxAge < 0 || c.MaxIdle < 0 || c.MaxLife < 0:
		return fmt.Errorf("cookie: negative time: %w", ErrInvalid)
	}
	return nil
}
