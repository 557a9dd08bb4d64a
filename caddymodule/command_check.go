package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

// found is what a check has to say.
type found struct {
	Sound     bool         `json:"sound"`
	Keys      int          `json:"keys"`
	Revoked   int          `json:"revoked"`
	FaultsAll int          `json:"faultCount"`
	Faults    []foundFault `json:"faults"` // the first of them
}

type foundFault struct {
	Table   string `json:"table,omitempty"`
	Key     string `json:"key,omitempty"`
	Problem string `json:"problem"`
}

func (f foundFault) String() string {
	if f.Table == "" {
		return f.Problem
	}
	return fmt.Sprintf("%s: %s: %s", f.Table, f.Key, f.Problem)
}

// maxFaults is how many faults are kept: a lost table has as many as keys.
const maxFaults = 1000

func (f *found) add(fault foundFault) {
	if f.FaultsAll++; f.FaultsAll <= maxFaults {
		f.Faults = append(f.Faults, fault)
	}
}

func (o *operator) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check [<file>]",
		Short: "Looks for faults in the running server's key store, or in a file",
		Long: `
Reads every key and compares all that must agree. Without a file it looks at the
store of the running server, which goes on. A file, such as a backup or the store
of a server that was stopped, is looked at page by page too, and is not changed.

It ends with exit code 4 when the store is not sound.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			var found *found
			if len(args) == 0 {
				found, err = o.checkServer()
			} else {
				found, err = o.checkFile(cmd.Context(), args[0])
			}
			if errors.Is(err, storage.ErrInUse) {
				err = fmt.Errorf("%s is in use by another process: check without a file looks at the store of the running server", args[0])
			}
			if err != nil {
				return err
			}
			if err := o.printFound(found); err != nil {
				return err
			}
			if !found.Sound {
				return &exitError{exitNotSound, fmt.Errorf("the key store is not sound: faults: %d", found.FaultsAll)}
			}
			return nil
		},
	}
}

func (o *operator) checkServer() (*found, error) {
	resp, err := o.stream(adminBase + "check")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	show := newProgress("checking", "keys")
	defer show.end()
	all := &found{Faults: []foundFault{}}
	for lines := json.NewDecoder(resp.Body); ; {
		var line struct {
			Keys   int
			Fault  *foundFault
			Result *struct{ Keys, Revoked, Faults int }
		}
		if err := lines.Decode(&line); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("the check broke off; the log of the server says why: %w", err)
		}
		show.at(line.Keys)
		if line.Fault != nil {
			all.add(*line.Fault)
		}
		if r := line.Result; r != nil {
			all.Keys, all.Revoked, all.Sound = r.Keys, r.Revoked, r.Faults == 0
			return all, nil
		}
	}
}

// checkFile checks a file that no server uses.
func (o *operator) checkFile(ctx context.Context, name string) (*found, error) {
	driver, err := fileDriver()
	if err != nil {
		return nil, err
	}
	all := &found{Faults: []foundFault{}}
	store, err := driver.Examine(name, func(problem string) { all.add(foundFault{Problem: problem}) })
	if err != nil || store == nil {
		return all, err
	}
	defer store.Close()
	return all, checkStore(ctx, store, all)
}

// checkStore adds to what was found what the records of a store say.
func checkStore(ctx context.Context, store apikey.Store, all *found) error {
	show := newProgress("checking", "keys")
	defer show.end()
	checked, err := apikey.CheckStore(ctx, store, show.at, func(f apikey.Fault) {
		all.add(foundFault{f.Table.String(), f.Key, f.Problem})
	})
	all.Keys, all.Revoked, all.Sound = checked.Keys, checked.Revoked, err == nil && all.FaultsAll == 0
	return err
}

// fileDriver returns the driver that keeps stores in files.
func fileDriver() (storage.FileDriver, error) {
	info, err := caddy.GetModule(storage.Namespace + "." + defaultDriver)
	if err != nil {
		return nil, err
	}
	driver, ok := info.New().(storage.FileDriver)
	if !ok {
		return nil, fmt.Errorf("the storage driver %s has no files", defaultDriver)
	}
	return driver, nil
}

func (o *operator) printFound(all *found) error {
	if o.json {
		data, err := json.Marshal(all)
		if err != nil {
			return err
		}
		return o.printJSON(data)
	}
	return o.table(func(w io.Writer) {
		fmt.Fprintf(w, "keys\t%d\nrevoked\t%d\nfaults\t%d\n", all.Keys, all.Revoked, all.FaultsAll)
		for i, fault := range all.Faults {
			if i == maxShownLines {
				fmt.Fprintf(w, "...\t\n")
				break
			}
			fmt.Fprintf(w, "fault\t%s\n", fault)
		}
	})
}
