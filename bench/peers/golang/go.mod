module molt/bench/peers/golang

go 1.27
