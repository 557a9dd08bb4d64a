package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

func (o *operator) restore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore <backup> --to <file> [--replace] [--revoked-since <file>]...",
		Short: "Makes the key store of a stopped server from a backup",
		Long: `
Makes a key store from a backup, for a server that is not running. The backup is
checked before anything is touched. With --replace, a store that is there is kept
beside the new one.

` + bringsBack + `
--revoked-since names what tells of the time after the backup: the log of the server,
as JSON lines with those of the logger api_keys.audit in it (several: the oldest
first), or the old store, if it can still be read. A key that was revoked by then is
revoked; one that ended earlier or had a smaller scope gets that. A key that the old
store does not have any more is revoked too. No key gets more rights than the backup
gives it, so it can be repeated.`,
		Args: cobra.ExactArgs(1),
	}
	to := cmd.Flags().String("to", "", "The key store to make")
	replace := cmd.Flags().Bool("replace", false, "Put it in the place of a store that is there, which is kept under another name")
	since := cmd.Flags().StringArray("revoked-since", nil, "A log of the server or its old store, to revoke again what was revoked since")
	cmd.MarkFlagRequired("to")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		driver, err := fileDriver()
		if err != nil {
			return err
		}
		later, err := readHistory(driver, *since)
		if err != nil {
			return err
		}
		defer later.close()
		how := storage.Rewriting{Replace: *replace}
		if real, err := filepath.EvalSymlinks(*to); err == nil {
			how.Aside = real + ".replaced-" + time.Now().UTC().Format("20060102T150405Z")
		}
		var all found
		var carried apikey.Carried
		err = driver.Rewrite(cmd.Context(), args[0], *to, how, func(restored apikey.Store) (err error) {
			if err := checkStore(cmd.Context(), restored, &all); err != nil {
				return err
			}
			if !all.Sound {
				return fmt.Errorf("the backup is not sound (%s); check %s tells all", all.Faults[0], args[0])
			}
			carried, err = later.carryInto(cmd.Context(), restored)
			return err
		})
		if err != nil {
			return explainFile(*to, err)
		}
		fields := []field{
			{"file", *to}, {"keys", all.Keys}, {"revoked", all.Revoked + carried.Revoked},
			{"revokedAgain", carried.Revoked}, {"endEarlier", carried.Shorter}, {"readOnlyAgain", carried.Narrower},
		}
		if how.Aside != "" {
			fields = append(fields, field{"replaced", how.Aside})
		}
		if err := o.printObject(fields...); err != nil {
			return err
		}
		if len(*since) == 0 {
			cmd.PrintErr("Keys that were revoked after this backup was made are good again, as soon as a server uses it. " +
				"If you have the audit log or the old store, restore again, with --replace and --revoked-since <file>.\n")
		}
		return nil
	}
	return cmd
}

// explainFile says in the words of the commands what is wrong with a file.
func explainFile(name string, err error) error {
	switch {
	case errors.Is(err, storage.ErrInUse):
		return fmt.Errorf("%s is in use by another process: stop the server first", name)
	case errors.Is(err, storage.ErrExists):
		return fmt.Errorf("%s is there already: --replace puts the backup in its place and keeps it under another name", name)
	}
	return err
}

// history is what is known of the time after a backup.
type history struct {
	stores []apikey.Store
	logs   auditLog
}

func readHistory(driver storage.FileDriver, names []string) (h *history, err error) {
	h = &history{logs: make(auditLog)}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	for _, name := range names {
		log, err := isLog(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("--revoked-since takes a log of the server or its old store: %w", err)
		}
		if err != nil {
			return h, err
		}
		if log {
			if err := h.logs.read(name); err != nil {
				return h, err
			}
			continue
		}
		var problem string
		store, err := driver.Examine(name, func(p string) { problem = p })
		if err == nil && store == nil {
			err = errors.New(problem)
		}
		if err != nil {
			return h, fmt.Errorf("--revoked-since %s is neither a log of JSON lines nor a sound key store; the log of the server tells the same: %w", name, err)
		}
		h.stores = append(h.stores, store)
	}
	return h, nil
}

func (h *history) close() {
	for _, store := range h.stores {
		_ = store.Close()
	}
}

func (h *history) carryInto(ctx context.Context, restored apikey.Store) (total apikey.Carried, err error) {
	tells := []apikey.History{h.logs.history}
	for _, store := range h.stores {
		common, err := apikey.SomeInCommon(ctx, restored, store)
		if err != nil {
			return total, err
		}
		if !common {
			return total, errors.New("the store of --revoked-since has none of the keys of the backup: it is not what became of it, and every key would be revoked")
		}
		tells = append(tells, apikey.HistoryOf(store))
	}
	for _, became := range tells {
		n, err := apikey.CarryOver(ctx, restored, became, time.Now())
		if err != nil {
			return total, err
		}
		total.Revoked += n.Revoked
		total.Shorter += n.Shorter
		total.Narrower += n.Narrower
	}
	return total, nil
}

func (o *operator) compact() *cobra.Command {
	return &cobra.Command{
		Use:   "compact <file>",
		Short: "Makes the key store of a stopped server as small as its keys",
		Long: `
Writes the key store of a server that is not running anew, without the room that
removed keys have left. The new file is checked, and takes the place of the old one
at once.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			driver, err := fileDriver()
			if err != nil {
				return err
			}
			before, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			var all found
			err = driver.Rewrite(cmd.Context(), args[0], args[0], storage.Rewriting{Replace: true}, func(fresh apikey.Store) error {
				if err := checkStore(cmd.Context(), fresh, &all); err != nil {
					return err
				}
				if !all.Sound {
					return fmt.Errorf("the store is not sound (%s); check tells all", all.Faults[0])
				}
				return nil
			})
			if err != nil {
				return explainFile(args[0], err)
			}
			after, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			return o.printObject(field{"file", args[0]}, field{"keys", all.Keys}, field{"bytesBefore", before.Size()}, field{"bytes", after.Size()})
		},
	}
}
