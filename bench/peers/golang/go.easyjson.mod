module molt/bench/peers/golang

go 1.27

require github.com/mailru/easyjson v0.7.7

require github.com/josharian/intern v1.0.0 // indirect

// Debian's source packages: nothing is fetched.
replace github.com/mailru/easyjson => /usr/share/gocode/src/github.com/mailru/easyjson

replace github.com/josharian/intern => /usr/share/gocode/src/github.com/josharian/intern
