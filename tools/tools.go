// Package tools pins the programs that build this project, in a module of its
// own so that nobody who uses the plugin inherits their dependencies.
package tools
