// Package config owns the cloud config file: its types, and how a file becomes
// a complete, valid [CloudConfig] or a list of everything that is wrong with
// it, each with file, line, column and key.
//
// [Load] and [Parse] are the only ways in. What they return holds no unset
// values (defaults are filled in) and no contradictions, and is read-only by
// convention: it is shared without locks.
//
// The package reads the config file and nothing else. It never opens the CA,
// certificate or credential files that the config names, never asks for
// Secrets or environment variables, and never talks to NSX, vCenter or
// Kubernetes. No secret is ever part of a CloudConfig, so one may be logged.
package config
