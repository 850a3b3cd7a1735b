// The one process of a pod's sandbox on the tests' node.
module siem.example.com/tests/programs/pause

go 1.26.0
