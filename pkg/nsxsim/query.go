package nsxsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// query is a parsed search query, in the syntax that NSX takes over from its
// search engine: terms "field:value" joined by AND, OR and NOT, and in
// parentheses; a value may have the wildcards * and ?, stand in quotes, and be a
// list "field:(a OR b)". Terms that follow each other without an operator are
// joined by AND. A value without a field is looked for in all strings.
type query struct {
	op    queryOp
	terms []*query // of all, any and not
	field string   // of a term: a path like tags.scope; "" is any
	value string   // of a term, in lower case
	glob  []rune   // of a term with wildcards, else nil
}

type queryOp int

const (
	queryTerm queryOp = iota
	queryAll
	queryAny
	queryNot
)

const maxQueryDepth = 100

var errQueryEnd = errors.New("it ends too early")

func parseQuery(text string) (*query, error) {
	p := &queryParser{tokens: queryTokens(text)}
	q, err := p.any("", 0)
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("%q is not expected", p.tokens[0].text)
	}
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", text, err)
	}
	return q, nil
}

// queryToken is a parenthesis, a colon, or a word. Quoted words are no operators
// and have no wildcards.
type queryToken struct {
	text   string
	quoted bool
	glob   bool // an unescaped * or ? is in it
	sign   bool // parenthesis or colon
}

func queryTokens(text string) []queryToken {
	var tokens []queryToken
	rest := []rune(text)
	field := false // the last token was a word that a colon may follow
	for len(rest) > 0 {
		switch c := rest[0]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			rest, field = rest[1:], false
		case c == '(' || c == ')' || c == ':':
			tokens = append(tokens, queryToken{text: string(c), sign: true})
			rest, field = rest[1:], false
		case c == '"':
			var t queryToken
			t, rest = quotedToken(rest[1:])
			tokens = append(tokens, t)
		default:
			var t queryToken
			field = len(tokens) == 0 || tokens[len(tokens)-1].text != ":" || !tokens[len(tokens)-1].sign
			t, rest = wordToken(rest, field)
			tokens = append(tokens, t)
		}
	}
	return tokens
}

func quotedToken(rest []rune) (queryToken, []rune) {
	var word []rune
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && i+1 < len(rest):
			i++
			word = append(word, rest[i])
		case rest[i] == '"':
			return queryToken{text: string(word), quoted: true}, rest[i+1:]
		default:
			word = append(word, rest[i])
		}
	}
	return queryToken{text: string(word), quoted: true}, nil
}

// wordToken reads up to a space or parenthesis; a word that may be a field's name
// ends at a colon, too, while a value such as an IPv6 address does not.
func wordToken(rest []rune, field bool) (queryToken, []rune) {
	t := queryToken{}
	var word []rune
	i := 0
	for ; i < len(rest) && !strings.ContainsRune(" \t\r\n()\"", rest[i]); i++ {
		c := rest[i]
		if c == ':' && field {
			break
		}
		if c == '\\' && i+1 < len(rest) {
			i++
			word = append(word, rest[i])
			t.quoted = true
			continue
		}
		t.glob = t.glob || c == '*' || c == '?'
		word = append(word, c)
	}
	t.text = string(word)
	return t, rest[i:]
}

type queryParser struct{ tokens []queryToken }

func (p *queryParser) peek(text string, sign bool) bool {
	return len(p.tokens) > 0 && p.tokens[0].sign == sign && !p.tokens[0].quoted && p.tokens[0].text == text
}

func (p *queryParser) take(text string, sign bool) bool {
	if !p.peek(text, sign) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

// any, all and not read a query of that and of tighter binding. Words in it
// without a field are values of the one given.
func (p *queryParser) any(field string, depth int) (*query, error) {
	if depth > maxQueryDepth {
		return nil, errors.New("it is nested too deeply")
	}
	first, err := p.all(field, depth)
	if err != nil {
		return nil, err
	}
	q := &query{op: queryAny, terms: []*query{first}}
	for p.take("OR", false) || p.take("||", false) {
		next, err := p.all(field, depth)
		if err != nil {
			return nil, err
		}
		q.terms = append(q.terms, next)
	}
	return q.simple(), nil
}

func (p *queryParser) all(field string, depth int) (*query, error) {
	q := &query{op: queryAll}
	for {
		next, err := p.not(field, depth)
		if err != nil {
			return nil, err
		}
		q.terms = append(q.terms, next)
		if p.take("AND", false) || p.take("&&", false) {
			continue
		}
		if len(p.tokens) == 0 || p.peek(")", true) || p.peek("OR", false) || p.peek("||", false) {
			return q.simple(), nil
		}
	}
}

func (p *queryParser) not(field string, depth int) (*query, error) {
	if p.take("NOT", false) {
		if depth > maxQueryDepth {
			return nil, errors.New("it is nested too deeply")
		}
		q, err := p.not(field, depth+1)
		return &query{op: queryNot, terms: []*query{q}}, err
	}
	if p.take("(", true) {
		return p.rest(field, depth)
	}
	if len(p.tokens) == 0 {
		return nil, errQueryEnd
	}
	word := p.tokens[0]
	if word.sign || !word.quoted && (word.text == "AND" || word.text == "OR") {
		return nil, fmt.Errorf("%q is not expected", word.text)
	}
	p.tokens = p.tokens[1:]
	if !p.take(":", true) {
		return newTerm(field, word), nil
	}
	if p.take("(", true) {
		return p.rest(word.text, depth)
	}
	if len(p.tokens) == 0 || p.tokens[0].sign {
		return nil, fmt.Errorf("%s has no value", word.text)
	}
	value := p.tokens[0]
	p.tokens = p.tokens[1:]
	return newTerm(word.text, value), nil
}

// rest reads what follows an opening parenthesis.
func (p *queryParser) rest(field string, depth int) (*query, error) {
	q, err := p.any(field, depth+1)
	if err != nil {
		return nil, err
	}
	if !p.take(")", true) {
		return nil, errors.New("a parenthesis is not closed")
	}
	return q, nil
}

func (q *query) simple() *query {
	if len(q.terms) == 1 {
		return q.terms[0]
	}
	return q
}

func newTerm(field string, word queryToken) *query {
	q := &query{field: field, value: strings.ToLower(word.text)}
	if word.glob {
		q.glob = []rune(q.value)
	}
	return q
}

// matches tells whether a document fits. As in NSX, each term is held against
// all values of its field: tags.scope:a AND tags.tag:b is true of an object with
// the tags a=x and c=b.
func (q *query) matches(doc document) bool {
	switch q.op {
	case queryAll:
		return !slices.ContainsFunc(q.terms, func(t *query) bool { return !t.matches(doc) })
	case queryAny:
		return slices.ContainsFunc(q.terms, func(t *query) bool { return t.matches(doc) })
	case queryNot:
		return !q.terms[0].matches(doc)
	}
	if q.field != "" && q.field != "*" {
		return slices.ContainsFunc(valuesAt(doc, strings.Split(q.field, ".")), q.fits)
	}
	for name := range doc {
		if slices.ContainsFunc(valuesIn(doc[name]), q.fits) {
			return true
		}
	}
	return false
}

// fits tells whether a value, in lower case, is the term's.
func (q *query) fits(value string) bool {
	if q.glob == nil {
		return value == q.value
	}
	return globMatches(q.glob, []rune(value))
}

// globMatches goes back to the last * only, which is enough.
func globMatches(glob, text []rune) bool {
	g, t := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, mark = g, t
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == text[t]):
			g++
			t++
		case star >= 0:
			mark++
			g, t = star+1, mark
		default:
			return false
		}
	}
	for g < len(glob) && glob[g] == '*' {
		g++
	}
	return g == len(glob)
}

// valuesAt gives the plain values at a path, of all members of lists on the way,
// in lower case.
func valuesAt(doc document, path []string) []string {
	raw, ok := doc[path[0]]
	if !ok {
		return nil
	}
	if len(path) == 1 {
		var values []string
		var list []json.RawMessage
		if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
			list = []json.RawMessage{raw}
		}
		for _, v := range list {
			if v[0] != '{' && v[0] != '[' {
				values = append(values, plain(v))
			}
		}
		return values
	}
	var values []string
	switch raw[0] {
	case '{':
		values = valuesAt(doc.object(path[0]), path[1:])
	case '[':
		for _, o := range doc.objects(path[0]) {
			values = append(values, valuesAt(o, path[1:])...)
		}
	}
	return values
}

// valuesIn gives all plain values in a value.
func valuesIn(raw json.RawMessage) (values []string) {
	switch raw[0] {
	case '{':
		var o document
		_ = json.Unmarshal(raw, &o) // stored: it parses
		for _, v := range o {
			values = append(values, valuesIn(v)...)
		}
	case '[':
		var list []json.RawMessage
		_ = json.Unmarshal(raw, &list) // stored: it parses
		for _, v := range list {
			values = append(values, valuesIn(v)...)
		}
	default:
		values = append(values, plain(raw))
	}
	return values
}

func plain(raw json.RawMessage) string {
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		s = string(raw)
	}
	return strings.ToLower(s)
}
