// Reads cases from standard input and answers each with one line: "ok", or why Go's verifier refuses the chain.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"time"
)

// A peer's view: the chain it is shown, leaf first, and the anchors it has.
type check struct {
	Chain   string
	Anchors string
	// Unix seconds.
	At int64
	// Purposes to ask for; none asks for any, as upstream's SPIFFE verification does.
	Usages []x509.ExtKeyUsage
}

func main() {
	cases := json.NewDecoder(bufio.NewReader(os.Stdin))
	for cases.More() {
		var c check
		if err := cases.Decode(&c); err != nil {
			fmt.Fprintln(os.Stderr, "case:", err)
			os.Exit(1)
		}
		if err := verify(c); err != nil {
			fmt.Printf("%q\n", err.Error())
		} else {
			fmt.Println(`"ok"`)
		}
	}
}

func verify(c check) error {
	chain, err := certificates(c.Chain)
	if err != nil {
		return err
	}
	anchors, err := certificates(c.Anchors)
	if err != nil {
		return err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, anchor := range anchors {
		roots.AddCert(anchor)
	}
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	usages := c.Usages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   time.Unix(c.At, 0),
		KeyUsages:     usages,
	})
	return err
}

func certificates(text string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no certificates")
	}
	return all, nil
}
