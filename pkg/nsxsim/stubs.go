package nsxsim

var lbServiceSubs, poolSubs []sub
