package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// constant is a string constant of a package that users meet.
type constant struct{ value, meaning string }

// constants reads the string constants of the package in dir whose names begin with prefix, in the order of the source.
// Those that end in a slash only begin others, and are left out. A constant without a comment is an error.
func constants(dir, prefix string) ([]constant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	values := map[string]string{} // by name, of all that were read
	var found []constant
	fset := token.NewFileSet()
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, spec := range constSpecs(file) {
			name := spec.Names[0].Name
			value, ok := evaluate(spec, values)
			if !ok {
				continue
			}
			values[name] = value
			if !strings.HasPrefix(name, prefix) || strings.HasSuffix(value, "/") {
				continue
			}
			meaning := forUsers(spec.Doc.Text(), name)
			if meaning == "" {
				return nil, fmt.Errorf("constant %s of %s has no comment", name, dir)
			}
			found = append(found, constant{value, meaning})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no constants that begin with %s", dir, prefix)
	}
	return found, nil
}

// constSpecs are the declarations of single constants in a file.
func constSpecs(file *ast.File) []*ast.ValueSpec {
	var specs []*ast.ValueSpec
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, s := range group.Specs {
			if spec := s.(*ast.ValueSpec); len(spec.Names) == 1 && len(spec.Values) == 1 {
				specs = append(specs, spec)
			}
		}
	}
	return specs
}

// evaluate gives the value of a constant that is made of string literals and of constants known already.
func evaluate(spec *ast.ValueSpec, known map[string]string) (string, bool) {
	var eval func(ast.Expr) (string, bool)
	eval = func(e ast.Expr) (string, bool) {
		switch e := e.(type) {
		case *ast.BasicLit:
			s, err := strconv.Unquote(e.Value)
			return s, err == nil && e.Kind == token.STRING
		case *ast.Ident:
			s, ok := known[e.Name]
			return s, ok
		case *ast.BinaryExpr:
			x, ok1 := eval(e.X)
			y, ok2 := eval(e.Y)
			return x + y, ok1 && ok2 && e.Op == token.ADD
		}
		return "", false
	}
	return eval(spec.Values[0])
}

// forUsers turns a Go comment into a sentence for people who don't read Go: without the constant's name in front, and
// without the hint at its end that says where in the source to look.
func forUsers(comment, name string) string {
	text := strings.Join(strings.Fields(comment), " ")
	text = strings.TrimLeft(strings.TrimPrefix(text, name), ": ")
	if i := strings.LastIndex(text, ": see "); i >= 0 {
		text = text[:i] + "."
	}
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(first)) + text[size:]
}
