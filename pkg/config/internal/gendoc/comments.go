package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// comments are the doc comments of a package's types. They are Markdown: lists
// and `code` are all that they use, and both are the same in either.
type comments struct {
	types  map[string]string // by type
	fields map[string]string // by type.field
	values map[string]string // by type and value of a constant: type=value
}

// readComments reads the comments of the package in dir.
func readComments(dir string) (*comments, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(fset, files, dir, doc.PreserveAST)
	if err != nil {
		return nil, fmt.Errorf("reading the comments of %s: %w", dir, err)
	}
	c := &comments{types: map[string]string{}, fields: map[string]string{}, values: map[string]string{}}
	for _, t := range pkg.Types {
		c.types[t.Name] = strings.TrimSpace(t.Doc)
		for _, spec := range t.Decl.Specs {
			structure, ok := spec.(*ast.TypeSpec).Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range structure.Fields.List {
				for _, name := range field.Names {
					c.fields[t.Name+"."+name.Name] = strings.TrimSpace(field.Doc.Text())
				}
			}
		}
		for _, group := range t.Consts {
			for _, spec := range group.Decl.Specs {
				constant := spec.(*ast.ValueSpec)
				literal, ok := constant.Values[0].(*ast.BasicLit)
				if !ok || constant.Doc == nil {
					continue
				}
				value, err := strconv.Unquote(literal.Value)
				if err != nil {
					return nil, fmt.Errorf("constant %s: %w", constant.Names[0], err)
				}
				c.values[t.Name+"="+value] = renamed(constant.Doc.Text(), constant.Names[0].Name, value)
			}
		}
	}
	return c, nil
}

// renamed returns a comment that begins with a Go name so that it begins with
// what users call it.
func renamed(comment, goName, userName string) string {
	if rest, ok := strings.CutPrefix(comment, goName+" "); ok {
		return "`" + userName + "` " + rest
	}
	return comment
}
