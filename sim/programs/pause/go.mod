// The one process of a pod's sandbox on the tests' node.
module siem.example.com/sim/programs/pause

go 1.26.0
