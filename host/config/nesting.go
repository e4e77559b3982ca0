package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The parser of HCL recurses for every bracket and every sign, without a bound:
// a quarter of a megabyte of "[" ends the process with a stack overflow, which
// Go cannot recover from. The lexer does not recurse, so it is asked first.
const (
	maxFileBytes = 1 << 16 // far over what a person writes
	maxNesting   = 64
)

// tooDeep returns where src is nested deeper than maxNesting, if it is.
func tooDeep(filename string, src []byte) (hcl.Range, bool) {
	tokens, _ := hclsyntax.LexConfig(src, filename, hcl.InitialPos) // its mistakes are the parser's to tell
	depth, signs := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenMinus, hclsyntax.TokenBang:
			signs++
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
			// Between brackets signs may stand on lines of their own.
		default:
			signs = 0
		}
		switch t.Type {
		case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCBrace, hclsyntax.TokenTemplateSeqEnd:
			depth = max(0, depth-1)
		}
		if depth > maxNesting || signs > maxNesting {
			return t.Range, true
		}
	}
	return hcl.Range{}, false
}
