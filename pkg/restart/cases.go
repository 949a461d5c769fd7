package restart

import "github.com/nodeagent/nodeagent/pkg/api/v1alpha1"

// Case is one line of the table in docs/restart.md: what becomes of a workload
// of a kind in a situation. Each is played on a real API server by the stories
// it names (TestOnAPIServer) and on the lab's cluster by those of test/e2e, or
// says what of it is not, and why. A test holds the names together.
type Case struct {
	Kind, Situation, Happens, Clients string
	Stories, Lab                      []string
	NotOnLab                          string
}

// Cases lists all of them. A kind is named by the first of its cases alone.
func Cases() []Case {
	return []Case{
		{"Deployment", "RollingUpdate", "**Template**: the annotation `" + restartedAt + "` is written into the pod template, as `kubectl rollout restart` does; the Deployment's own strategy replaces all pods", "what `maxSurge` and `maxUnavailable` allow",
			[]string{"deployment", "two-agents", "conflicts", "long-names"}, []string{"TestDeployment"}, ""},
		{"", "scope Pod", "**Release** of that one pod: without `pod-template-hash` its ReplicaSet lets go of it and starts another, while it goes on serving. Works on a paused Deployment too", "never fewer pods than before",
			[]string{"one-pod", "one-pod-stalled", "one-pod-orphaned"}, []string{"TestDeploymentOnePod", "TestKubectlRestart"}, ""},
		{"", "paused; Recreate; a rollout in progress", "refused; Recreate with `allowDowntime`: Template, with scope Pod **Evict**", "with Recreate a gap", []string{"refused"}, []string{"TestRefusals", "TestDowntimeAllowed"}, ""},
		{"", "no new pod is Ready at the deadline", "Stalled, with the reason from the pods; the old pods serve on", "nothing", []string{"stalled", "killed-stalling", "not-rolled-back"}, []string{"TestStalled"}, ""},
		{"", "the same, with onStall rollback", "the template gets back what stood there before: the new pods go, the old ones stay. Stalled all the same, and says whether the workload is whole again", "nothing", []string{"rolled-back", "rolled-back-changed", "rollback-denied", "rolled-back-elsewhere"}, []string{"TestRolledBack"}, ""},
		{"", "somebody changes the template in the middle, or takes the annotation out", "Failed, and told; it is not fought", "what they wanted", []string{"template-changed", "annotation-reverts"}, []string{"TestMidway"}, ""},
		{"StatefulSet", "RollingUpdate without partition", "Template", "one pod down at a time", []string{"statefulset"}, []string{"TestStatefulSet"}, ""},
		{"", "OnDelete, or a partition", "**Evict**, pod by pod, the highest ordinal first, each next one Ready before the following goes. Below a partition pods come back at their old revision", "one pod down at a time", []string{"sets-by-hand"}, []string{"TestStatefulSetOnDelete", "TestStatefulSetPartition"}, ""},
		{"", "scope Pod", "Evict that pod alone; also where that very pod is what the set is stuck on", "its ordinal is down", []string{"set-pod"}, []string{"TestStatefulSetOnePod"}, ""},
		{"", "a pod broken, OrderedReady", "refused: the set would hang on it (kubernetes #67250). Where it breaks in the middle, the stall says that it has to be deleted by hand, rolled back or not", "", []string{"set-stuck", "rolled-back-sets"}, []string{"TestStatefulSetStuck"}, ""},
		{"DaemonSet", "scope Pod (what an agent asks for)", "Evict the pod of the agent's node", "that node's pod is down", []string{"daemonset", "disruption-budget"}, []string{"TestDaemonSet"}, ""},
		{"", "scope Workload", "RollingUpdate: Template; OnDelete: Evict, pod by pod", "node by node; none with `maxSurge`", []string{"daemonset-whole", "rolled-back-sets"}, []string{"TestDaemonSetWhole"}, ""},
		{"ReplicaSet, ReplicationController without owner", "a selector label that no Service uses", "Release, pod by pod, by the agent of each pod's node: that label is taken off", "never fewer pods than before", []string{"replicasets", "killed-pods"}, []string{"TestControllersWithoutOwner"}, ""},
		{"", "controller and Services select by the same labels", "the same, but an old pod leaves the endpoints as soon as it is released. Told; with one replica refused unless `allowDowntime`", "one pod less at a time", []string{"replicasets"}, []string{"TestRefusals"}, ""},
		{"Pod without owner", "", "**Copy** under a new name (`web` → `web-1a2b3`), kept off the filling node where another fits. Labels, annotations and shareable volumes are kept", "nothing: the copy is in the endpoints before the old one leaves", []string{"bare-pod", "bare-pod-stalled"}, []string{"TestPodWithoutOwner", "TestRefusals"}, ""},
		{"Job", "", "refused and told", "", []string{"jobs"}, []string{"TestJob"}, ""},
		{"", "annotation `nodeagent.dev/restart: act`, and the first rule of its podFailurePolicy that an evicted pod can match ignores DisruptionTarget", "Evict; the Job starts another and counts no failure. Its program must end with another code than 0 when it is told to stop: Kubernetes takes 0 for work that is done", "", []string{"jobs"}, []string{"TestJob", "TestRefusals"}, ""},
		{"CronJob", "", "refused and told; a pod of one of its Jobs that leaks is told on that Job, which is refused", "", []string{"jobs"}, []string{"TestRefusals", "TestJob"}, ""},
		{"Argo Rollout, Kruise CloneSet and StatefulSet, OpenShift DeploymentConfig", "with `manifests/overlays/other-kinds`", "Template", "what their own strategy allows", []string{"other-kinds"}, []string{"TestOtherKinds"}, "DeploymentConfig, which OpenShift serves by an API server of its own"},
		{"", "DeploymentConfig with onStall rollback", "not rolled back: OpenShift would make new pods of the earlier template too, in a third rollout. The restart says so when it begins and when it stalls, and which command keeps the old pods", "nothing", []string{"other-kinds"}, nil, "OpenShift serves it by an API server of its own"},
		{"static pod, the agent's own DaemonSet, excluded namespaces, other kinds", "", "refused", "", []string{"never"}, []string{"TestStaticPod", "TestFenced"}, ""},
		{"any", "several agents see it leak at once", "one Restart, by whoever asked first; the others join it", "", []string{"race", "rounds", "two-agents"}, []string{"TestTwoNodesOneRestart", "TestRounds"}, ""},
		{"", "a pod is in danger, whoever fills the disk", "its owner is told while it is there, and looked up once", "", []string{"owners"}, []string{"TestAlert"}, ""},
		{"", "a person's Restart, for no node", "taken up by the leader of the agents; an offence of the same workload joins it", "", []string{"abandoned"}, []string{"TestKubectlRestart"}, ""},
		{"", "its agent is killed at any step", "taken up where it is, by the agent that comes back or by the leader; nothing is restarted twice", "", []string{"killed", "killed-elsewhere", "killed-pods", "killed-stalling", "killed-waiting"}, []string{"TestKilledAtEachStep", "TestAgentKilled"}, ""},
		{"", "its node is cut off", "the leader takes it over once its renewal ran out; if that was the leader, another one leads first", "", []string{"cut-off"}, []string{"TestHolderCutOff"}, ""},
		{"", "the API server is away, refuses, fails, is slow, ends watches, loses answers; etcd is compacted", "it waits and goes on, once", "", []string{"api-restart", "bad-api"}, []string{"TestAPIServerAway"}, "all but being away, since that API server is every story's"},
		{"", "the workload is deleted in the middle", "Failed; the Restart goes with its owner", "", []string{"target-deleted"}, []string{"TestMidway"}, ""},
		{"", "a person deletes the Restart in the middle", "the agent does no more; a rollout that was begun goes on by itself, and the slot is free", "", []string{"deleted-midway"}, []string{"TestRestartDeleted"}, ""},
		{"", "more at once than `restart.limits`", "Pending, and says what it waits for; a person's own is not held back by the hourly budget", "", []string{"slots", "slot-freed"}, []string{"TestSlotsWindowsBudget"}, ""},
		{"", "outside all windows", "Pending until one opens; not where the disk is full within `restart.urgent`, nor where a person asked", "", []string{"windows"}, []string{"TestSlotsWindowsBudget"}, ""},
		{"", "all restarts are paused", "Pending until the pause ends; what runs goes on", "", []string{"paused"}, []string{"TestPause"}, ""},
		{"", "mode approve", "Approval until a person who may approves it; Refused when nobody does in time", "", []string{"approval", "approver"}, []string{"TestApproval", "TestShortTimes"}, ""},
		{"", "mode observe; never", "Observed: it says what would have been done; Refused", "", []string{"modes", "refused"}, []string{"TestObserveAndNever", "TestWarnings"}, ""},
		{"", "it did not help: nothing was freed, or it was the third within 24 hours", "Ineffective, or Stalled where that third one stalled: no more until somebody deletes the Restart or asks for one", "", []string{"ineffective", "rolled-back"}, []string{"TestShortTimes"}, ""},
		{"", "the node's disk fills", "the taint `" + v1alpha1.TaintDiskFilling + ":PreferNoSchedule` on that node, before anything is replaced, until the danger is over: new pods go elsewhere where they fit", "", []string{"node-taint", "taint-left", "taint-conflict", "taint-away"}, []string{"TestKeptOffFillingNode"}, ""},
		{"", "the same, where the fence `" + fenceNodesName + "` is not there or does not deny", "no taint, and an Event and a line in the log say so, once; the restart goes on", "", []string{"not-fenced"}, nil, "it would take the fence from all stories that run there"},
		{"", "`launch.taintPublicNode`, and the node's label `" + v1alpha1.LabelRole + "` is or is no more `" + v1alpha1.RolePublic + "`", "the taint `" + v1alpha1.LabelRole + "=" + v1alpha1.RolePublic + ":NoSchedule` on that node as long as the label is there: pods that do not tolerate it are kept off. One that a person set is left alone", "", []string{"role-taint"}, []string{"TestLaunch"}, ""},
		{"", "an agent's token tries more than it needs", "the API server refuses it", "", []string{"fences", "fenced", "fenced-agent", "fenced-node"}, []string{"TestAgentToken"}, ""},
	}
}
