// The client of k8s/cluster's checks. Runs in a pod.
//
//	client sleep             waits until it is stopped
//	client connect ADDRESS   tries a TCP connection: prints open, refused or blocked
//	client load [FLAG...]    calls at a steady rate; prints a result as JSON
//	client sweep [FLAG...]   reads all todos whose names are on stdin
//	client cross A B         two replicas read what the other one wrote
//	client fetch URL         prints a page, such as the metrics
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Longer than a connection within a node takes, even on a busy machine.
const connectTimeout = 3 * time.Second

func main() {
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	switch command {
	case "sleep":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
		<-stop
	case "connect":
		for _, address := range os.Args[2:] {
			fmt.Println(address, connect(address))
		}
	case "load":
		os.Exit(load(os.Args[2:]))
	case "sweep":
		os.Exit(sweep(os.Args[2:]))
	case "cross":
		os.Exit(cross(os.Args[2:]))
	case "fetch":
		if len(os.Args) == 3 {
			os.Exit(fetch(os.Args[2]))
		}
		fallthrough
	default:
		fmt.Fprintln(os.Stderr, "usage: client sleep | connect ADDRESS... | load [FLAG...] | sweep [FLAG...] | cross A B | fetch URL")
		os.Exit(2)
	}
}

func connect(address string) string {
	connection, err := net.DialTimeout("tcp", address, connectTimeout)
	if err == nil {
		connection.Close()
		return "open"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "refused"
	}
	return "blocked"
}
