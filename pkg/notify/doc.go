// Package notify tells people of restarts: in a chat, by webhook, through
// Alertmanager. What is to be told is not queued: it follows from the Restarts
// in the API and from what their status says was told already. So a message is
// not lost when the agent is killed, nothing grows while a receiver is away, and
// a full disk does not matter.
//
//	Restart ─→ incident (stage) ─→ route (annotation) ─→ due? ─→ send ─→ status.notified
//
// One agent of the cluster does it, the one that leads. Each receiver has a
// worker of its own: one that hangs or is away holds up no other, and no
// restart. A message is sent at least once: an agent that dies between sending
// and writing that down leaves it to be sent again. Stages that came and went
// while a receiver was away are left out, the newest is told.
package notify
