// Known calls on goroutines whose stacks grow: `calls GOROUTINES ROUNDS`. Prints how many calls each function had.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
)

var leaves, walks atomic.Int64

//go:noinline
func leaf(n int) int {
	leaves.Add(1)
	return n + 1
}

// Each level takes half a kilobyte of stack, so that it grows and moves while calls are open.
//
//go:noinline
func walk(depth int) int {
	walks.Add(1)
	var room [64]int
	room[depth%64] = depth
	if depth == 0 {
		return leaf(room[0])
	}
	sum := walk(depth-1) + room[depth%64]
	if depth%8 == 0 {
		runtime.Gosched()
	}
	return sum
}

//go:noinline
func recovers() (caught bool) {
	defer func() { caught = recover() != nil }()
	panics(3)
	return false
}

//go:noinline
func panics(depth int) int {
	if depth == 0 {
		panic("known")
	}
	return panics(depth-1) + 1
}

func main() {
	goroutines, _ := strconv.Atoi(os.Args[1])
	rounds, _ := strconv.Atoi(os.Args[2])
	var group sync.WaitGroup
	var caught atomic.Int64
	for range goroutines {
		group.Add(1)
		go func() {
			defer group.Done()
			for range rounds {
				walk(40)
				if recovers() {
					caught.Add(1)
				}
			}
		}()
	}
	group.Wait()
	fmt.Printf("leaf %d walk %d recovers %d\n", leaves.Load(), walks.Load(), caught.Load())
}
