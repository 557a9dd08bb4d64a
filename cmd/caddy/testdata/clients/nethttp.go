package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	url, token := os.Args[1]+"/v1/api-keys", os.Args[2]
	for _, body := range []string{`{}`, `{"name":"x"}`} {
		req, _ := http.NewRequest("POST", url, strings.NewReader(body))
		req.Header.Add("Authorization", "Bearer "+token)
		req.Header.Add("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			panic(err)
		}
		answer, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Println(string(answer))
	}
}
