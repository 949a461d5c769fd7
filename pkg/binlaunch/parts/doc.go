// Package parts joins the supervisor to the real fetcher, store and launcher:
// it turns a Binary's words into theirs, and their answers into the
// supervisor's.
package parts
