// Package rollout spreads a changed Binary over the nodes: at most
// maxUnavailable of them exchange their task or are without it at a time, and
// none does any more once the changed one failed on a node.
//
// The nodes report through their BinaryInstances. The leader of all agents
// reads them and writes into the Binary's status which nodes may go on;
// each node watches the Binaries anyway. Next is the decision, a pure function;
// its result is written under the resourceVersion that it was made from, so a
// leader that was deposed without knowing it is refused. Without a leader
// nothing is exchanged, and what runs runs on.
package rollout
