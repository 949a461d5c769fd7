// Web answers with its host name, and at /get?url= with what another answers.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	host, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, host) })
	http.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		// A connection of its own each time, so that the Service chooses anew.
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(r.URL.Query().Get("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	})
	fmt.Println("web: serving as", host)
	log.Fatal(http.ListenAndServe(":8080", nil))
}
