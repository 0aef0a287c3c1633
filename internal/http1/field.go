package http1

import (
	"net/http"
	"strconv"
	"strings"

	"openclaw-sandbox/internal/syntax"
)

func appendStatus(b []byte, code int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(b, ' ')
	text := http.StatusText(code)
	if text == "" {
		text = "status code " + strconv.Itoa(code) // as net/http
	}
	b = append(b, text...)
	return append(b, '\r', '\n')
}

// appendFields appends a field of each value, or nothing if the name is malformed.
func appendFields(b []byte, name string, values []string) []byte {
	if !syntax.Token.Only(name) {
		return b
	}
	for _, v := range values {
		b = appendField(b, name, v)
	}
	return b
}

// breaks makes spaces of line breaks, so that no value adds a field.
var breaks = strings.NewReplacer("\n", " ", "\r", " ")

func appendField(b []byte, name, value string) []byte {
	if strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0 {
		value = breaks.Replace(value)
	}
	b = append(b, name...)
	b = append(b, ':', ' ')
	b = append(b, strings.Trim(value, " \t")...)
	return append(b, '\r', '\n')
}
