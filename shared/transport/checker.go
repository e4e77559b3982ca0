package transport

import (
	"encoding/binary"
	"unicode/utf8"
)

// A Checker finds out whether a text is JSON in UTF-8, a part after the other:
// a large message is checked in steps, and need not be in one piece. The zero
// value is ready.
//
// It accepts what [json.Valid] and [utf8.Valid] both accept.
type Checker struct {
	// Members, if it is not nil, gets where the first members of the outermost
	// object stand, as they end, up to its capacity.
	Members []Member

	gone   int    // bytes of the parts before
	at     int    // the byte that is taken
	member Member // that has begun
	state  checkState
	key    bool   // the string is a key
	wrong  bool   // it is no JSON, whatever follows
	rest   string // of true, false or null
	digits int    // of an escape \u that are still missing
	open   []byte // the brackets
	rune   [utf8.UTFMax]byte
	begun  int // bytes of rune: the last one of the part before was cut
}

// A Member is where a key, with its quotes, and its value stand in an object:
// from the first byte to the one behind the last.
type Member struct{ Key, Value [2]int }

// maxDepth is how deep [json.Valid] goes.
const maxDepth = 10000

type checkState uint8

const (
	wantValue checkState = iota
	wantValueOrEnd
	wantKey
	wantKeyOrEnd
	wantColon
	wantComma
	wantNothing
	inString
	inEscape
	inHex
	inWord
	inMinus // of numbers
	inZero
	inInteger
	inPoint
	inFraction
	inExponent
	inExponentSign
	inExponentDigits
)

// Write takes the next part. It is false as soon as the text is known to be no
// JSON.
func (c *Checker) Write(p []byte) bool {
	if c.wrong = c.wrong || !c.runes(p); c.wrong {
		return false
	}
	for i := 0; i < len(p); {
		if c.state == inString {
			if i = skipPlain(p, i); i == len(p) {
				break
			}
		}
		c.at = c.gone + i
		if !c.next(p[i]) {
			c.wrong = true
			return false
		}
		i++
	}
	c.gone += len(p)
	return true
}

// Count is how many bytes were taken.
func (c *Checker) Count() int { return c.gone }

// Valid reports whether all parts together are JSON.
func (c *Checker) Valid() bool {
	if c.wrong || c.begun > 0 || len(c.open) > 0 {
		return false
	}
	return c.state == wantNothing || c.numberMayEnd()
}

// runes checks the UTF-8 of a part.
func (c *Checker) runes(p []byte) bool {
	for c.begun > 0 && len(p) > 0 {
		c.rune[c.begun] = p[0]
		c.begun++
		p = p[1:]
		if begun := c.rune[:c.begun]; utf8.FullRune(begun) {
			if !utf8.Valid(begun) {
				return false
			}
			c.begun = 0
		}
	}
	for i := len(p) - 1; i >= 0 && i > len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				c.begun = copy(c.rune[:], p[i:])
				p = p[:i]
			}
			break
		}
	}
	return utf8.Valid(p)
}

// skipPlain returns the index of the first byte that means something in a
// string, or len(p).
func skipPlain(p []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for i+8 <= len(p) {
		x := binary.LittleEndian.Uint64(p[i:])
		quote, slash := x^ones*'"', x^ones*'\\'
		if ((x-ones*' ')&^x|(quote-ones)&^quote|(slash-ones)&^slash)&highs != 0 {
			break
		}
		i += 8
	}
	for i < len(p) && p[i] != '"' && p[i] != '\\' && p[i] >= ' ' {
		i++
	}
	return i
}

// next takes one byte. It is false if that cannot follow.
func (c *Checker) next(b byte) bool {
	switch c.state {
	case inString:
		switch b {
		case '"':
			if c.key {
				c.state = wantColon
				if len(c.open) == 1 {
					c.member.Key[1] = c.at + 1
				}
			} else {
				c.valueEnds(c.at + 1)
			}
		case '\\':
			c.state = inEscape
		default:
			return false // a control character
		}
		return true
	case inEscape:
		switch b {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			c.state = inString
		case 'u':
			c.state, c.digits = inHex, 4
		default:
			return false
		}
		return true
	case inHex:
		if !(b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F') {
			return false
		}
		if c.digits--; c.digits == 0 {
			c.state = inString
		}
		return true
	case inWord:
		if b != c.rest[0] {
			return false
		}
		if c.rest = c.rest[1:]; c.rest == "" {
			c.valueEnds(c.at + 1)
		}
		return true
	}
	if c.state >= inMinus {
		if c.number(b) {
			return true
		}
		if !c.numberMayEnd() {
			return false
		}
		c.valueEnds(c.at)
	}
	if b == ' ' || b == '\t' || b == '\n' || b == '\r' {
		return true
	}
	return c.structure(b)
}

// structure takes what stands outside of strings, numbers and words.
func (c *Checker) structure(b byte) bool {
	switch c.state {
	case wantValueOrEnd:
		if b == ']' {
			return c.close('[')
		}
		return c.value(b)
	case wantValue:
		return c.value(b)
	case wantKeyOrEnd:
		if b == '}' {
			return c.close('{')
		}
		return c.begin(b, '"', inString, true)
	case wantKey:
		return c.begin(b, '"', inString, true)
	case wantColon:
		return c.begin(b, ':', wantValue, false)
	case wantComma:
		switch in := c.open[len(c.open)-1]; {
		case b == ',' && in == '{':
			c.state = wantKey
		case b == ',':
			c.state = wantValue
		case b == '}':
			return c.close('{')
		case b == ']':
			return c.close('[')
		default:
			return false
		}
		return true
	}
	return false // something behind the value
}

func (c *Checker) begin(b, want byte, state checkState, key bool) bool {
	c.state, c.key = state, key
	if key && len(c.open) == 1 {
		c.member.Key[0] = c.at
	}
	return b == want
}

// value takes the first byte of a value.
func (c *Checker) value(b byte) bool {
	if len(c.open) == 1 {
		c.member.Value[0] = c.at
	}
	switch {
	case b == '"':
		c.state, c.key = inString, false
	case b == '{':
		c.state = wantKeyOrEnd
		c.open = append(c.open, b)
	case b == '[':
		c.state = wantValueOrEnd
		c.open = append(c.open, b)
	case b == 't':
		c.state, c.rest = inWord, "rue"
	case b == 'f':
		c.state, c.rest = inWord, "alse"
	case b == 'n':
		c.state, c.rest = inWord, "ull"
	case b == '-':
		c.state = inMinus
	case b == '0':
		c.state = inZero
	case b >= '1' && b <= '9':
		c.state = inInteger
	default:
		return false
	}
	return len(c.open) <= maxDepth
}

func (c *Checker) close(bracket byte) bool {
	last := len(c.open) - 1
	if c.open[last] != bracket {
		return false
	}
	c.open = c.open[:last]
	c.valueEnds(c.at + 1)
	return true
}

// valueEnds is called behind a value that ends before a byte.
func (c *Checker) valueEnds(end int) {
	c.state = wantComma
	switch len(c.open) {
	case 0:
		c.state = wantNothing
	case 1:
		if c.open[0] == '{' && len(c.Members) < cap(c.Members) {
			c.member.Value[1] = end
			c.Members = append(c.Members, c.member)
		}
	}
}

// number takes a byte of a number. It is false if that is none.
func (c *Checker) number(b byte) bool {
	digit := b >= '0' && b <= '9'
	switch {
	case c.state == inMinus && b == '0':
		c.state = inZero
	case (c.state == inMinus || c.state == inInteger) && digit:
		c.state = inInteger
	case (c.state == inZero || c.state == inInteger) && b == '.':
		c.state = inPoint
	case (c.state == inPoint || c.state == inFraction) && digit:
		c.state = inFraction
	case (c.state == inZero || c.state == inInteger || c.state == inFraction) && (b == 'e' || b == 'E'):
		c.state = inExponent
	case c.state == inExponent && (b == '+' || b == '-'):
		c.state = inExponentSign
	case (c.state == inExponent || c.state == inExponentSign || c.state == inExponentDigits) && digit:
		c.state = inExponentDigits
	default:
		return false
	}
	return true
}

func (c *Checker) numberMayEnd() bool {
	switch c.state {
	case inZero, inInteger, inFraction, inExponentDigits:
		return true
	}
	return false
}
