package caddymodule

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// words are the subdirectives of a block, by name.
type words map[string]func(*caddyfile.Dispenser) error

// parse reads a block. A word that is not known is an error that names those
// that are: a typo must not leave a door open.
func (w words) parse(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		parse, ok := w[d.Val()]
		if !ok {
			return d.Errf("unknown subdirective %q; known are %s", d.Val(), strings.Join(slices.Sorted(maps.Keys(w)), ", "))
		}
		if err := parse(d); err != nil {
			return err
		}
	}
	return nil
}

// one reads the one argument of a word, which is given once.
func one(into *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if *into != "" {
			return d.Errf("%s is given twice", word)
		}
		if !d.AllArgs(into) || *into == "" {
			return d.ArgErr()
		}
		return nil
	}
}

// number reads the one argument of a word, a number that is not negative.
func number(into *int) func(*caddyfile.Dispenser) error {
	text := ""
	read := one(&text)
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if err := read(d); err != nil {
			return err
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return d.Errf("%s: %q is not a number of keys", word, text)
		}
		*into = n
		return nil
	}
}

// many reads the arguments of a word, at least one, and adds them.
func many(into *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		values := d.RemainingArgs()
		if len(values) == 0 {
			return d.ArgErr()
		}
		*into = append(*into, values...)
		return nil
	}
}

// flag reads a word without arguments, which is given once.
func flag(into *bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *into {
			return d.Errf("%s is given twice", d.Val())
		}
		*into = true
		if d.NextArg() {
			return d.ArgErr()
		}
		return nil
	}
}

// pair reads a name and a value, and adds them.
func pair(into *map[string]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		var name, value string
		if !d.AllArgs(&name, &value) {
			return d.ArgErr()
		}
		if _, ok := (*into)[name]; ok {
			return d.Errf("%s %s is given twice", word, name)
		}
		if *into == nil {
			*into = make(map[string]string)
		}
		(*into)[name] = value
		return nil
	}
}

// duration reads the one argument of a word, a duration such as 90s or 365d.
func duration(into *caddy.Duration) func(*caddyfile.Dispenser) error {
	text := ""
	read := one(&text)
	return func(d *caddyfile.Dispenser) (err error) {
		word := d.Val()
		if err := read(d); err != nil {
			return err
		}
		*into, err = parseDuration(d, word, text)
		return err
	}
}

// durationOrOff reads the one argument of a word, a duration of more than nothing,
// or off, which becomes a negative one.
func durationOrOff(into *caddy.Duration) func(*caddyfile.Dispenser) error {
	text := ""
	read := one(&text)
	return func(d *caddyfile.Dispenser) (err error) {
		word := d.Val()
		if err := read(d); err != nil {
			return err
		}
		if text == "off" {
			*into = -1
			return nil
		}
		*into, err = parseDuration(d, word, text)
		if err == nil && *into == 0 {
			return d.Errf("%s: give a duration of more than 0, or off", word)
		}
		return err
	}
}

func parseDuration(d *caddyfile.Dispenser, word, text string) (caddy.Duration, error) {
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed < 0 {
		return 0, d.Errf("%s: %q is not a duration; write one as 90s, 24h or 365d", word, text)
	}
	return caddy.Duration(parsed), nil
}
