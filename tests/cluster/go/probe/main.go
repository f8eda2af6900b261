// Command probe is what the cluster's own tests run in pods: it serves, asks, resolves, writes and eats memory.
// It is static, so its image holds nothing else and is made without pulling a base.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const usage = `probe serve ADDRESS            answer every request with the pod's name, until stopped
probe lookup NAME              print the addresses of NAME
probe get URL                  print what URL answers
probe api PATH                 ask the API server as the pod's service account
probe write FILE TEXT | read FILE
probe eat MIB                  hold MIB of memory, until stopped
probe sleep                    until stopped
probe steps STEP...            run several of the above, one argument each, e.g. "write /data/x hello" "sleep"
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("a command is missing\n%s", usage)
	}
	verb, rest := args[0], args[1:]
	arities := map[string]int{"serve": 1, "lookup": 1, "get": 1, "api": 1, "write": 2, "read": 1, "eat": 1, "sleep": 0}
	if arity, known := arities[verb]; verb != "steps" && (!known || len(rest) != arity) {
		return fmt.Errorf("unknown command %q\n%s", strings.Join(args, " "), usage)
	}
	switch verb {
	case "serve":
		return serve(rest[0])
	case "lookup":
		addresses, err := net.LookupHost(rest[0])
		fmt.Println(strings.Join(addresses, "\n"))
		return err
	case "get":
		return get(http.DefaultClient, rest[0], "")
	case "api":
		return api(rest[0])
	case "write":
		return os.WriteFile(rest[0], []byte(rest[1]), 0o664)
	case "read":
		text, err := os.ReadFile(rest[0])
		fmt.Println(string(text))
		return err
	case "eat":
		return eat(rest[0])
	case "sleep":
		waitForSignal()
	case "steps":
		for _, step := range rest {
			if err := run(strings.Fields(step)); err != nil {
				return fmt.Errorf("%s: %w", step, err)
			}
		}
	}
	return nil
}

func waitForSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
}

func serve(address string) error {
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintln(answer, "probe", name)
	})
	failed := make(chan error, 1)
	go func() { failed <- http.ListenAndServe(address, nil) }()
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGINT, syscall.SIGTERM)
	fmt.Println("serving", address)
	select {
	case err := <-failed:
		return err
	case <-stopped:
		return nil
	}
}

func get(client *http.Client, url, token string) error {
	client.Timeout = 10 * time.Second
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return nil
}

// api goes the way every in-cluster client goes: the service's DNS name, the mounted token and CA.
func api(path string) error {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return get(&http.Client{Transport: transport}, "https://kubernetes.default.svc"+path, string(token))
}

func eat(mebibytes string) error {
	count, err := strconv.Atoi(mebibytes)
	if err != nil {
		return err
	}
	held := make([]byte, count<<20)
	for i := 0; i < len(held); i += 4096 {
		held[i] = 1 // a page is only charged once it is written
	}
	fmt.Println("holding", mebibytes, "MiB")
	waitForSignal()
	held[0] = 0 // keeps the slice alive
	return nil
}
