// The etcd of the local stack: Debian's 3.4 is too old for the consistent reads from cache of Kubernetes 1.34.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
