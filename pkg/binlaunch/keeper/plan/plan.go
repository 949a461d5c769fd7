package plan

// Version is of the encoding. A keeper that outlived an agent's upgrade never
// reads a plan again, so the number only guards against a foreign program.
const Version = 3

// Prelude is what a keeper does before the rest of the plan is there: what is
// known from the first moment of a launch.
type Prelude struct {
	Unshare uintptr // CLONE_NEW*, for the task
	Steps   []Step  // the view's beginning
}

// Plan is everything else that a keeper does for one task.
type Plan struct {
	Argv     []string
	Env      []string // LISTEN_PID is added by the keeper
	Cwd      string   // as the task sees it
	Hostname string   // "": the host's

	OwnPids bool // the keeper is process 1 of a pid namespace of its own
	OwnUser bool // the task gets a user namespace that knows one uid and one gid

	UID, GID         uint32 // on the host
	InnerUID         uint32 // what the task is told, when OwnUser
	InnerGID         uint32
	Caps             uint64 // bits of the capabilities that stay
	NoNewPrivs       bool
	Seccomp          []byte // struct sock_filter[], nil: none
	Landlock         Landlock
	Rlimits          []Rlimit
	Steps            []Step // what is left of the view, in this order
	ReadOnlyProc     bool   // after the uid map was written through it
	CgroupIsFD       bool   // one cgroup v2 folder; else v1 tasks files to join
	Listen           int    // descriptors that the task gets from number 3 on
	OutputMax        int64  // bytes in one output file
	OutputFiles      int    // 1 and more
	Disk             int64  // bytes allocated in the sandbox folder; 0: no bound
	DiskEverySeconds uint32 // how often it is looked at
}

// Rlimit is one setrlimit.
type Rlimit struct {
	Resource  uint32 // RLIMIT_*
	Soft      uint64
	Hard      uint64
	MayRefuse bool // told, and no failure
}

// Landlock is a ruleset; Handled 0 means none.
type Landlock struct {
	HandledFS uint64
	Scoped    uint64
	Rules     []Rule
}

// Rule allows Access beneath Path, as the task sees it.
type Rule struct {
	Path   string
	Access uint64
}

// Op is one kind of step in the making of the task's view.
type Op uint32

// The steps.
const (
	Mount  Op = iota + 1 // Source Target Type Flags Data
	Folder               // Target Mode
	File                 // Target: an empty one to mount over
	Link                 // Source (the link's text) Target
	Device               // Target Mode Dev
	Seal                 // Target and all mounts beneath it become read-only
	Pivot                // Target becomes /, the old root goes
)

// Step is one of them. Flags may hold MS_*; for Mount with MS_BIND and other
// flags the second mount that the kernel asks for is made too.
type Step struct {
	Op       Op
	Source   string
	Target   string
	Type     string
	Data     string
	Flags    uint64
	Mode     uint32
	Dev      uint64
	Optional bool // the source may be missing
}

// Socket is the descriptor that a keeper starts with. On it comes the Prelude as
// soon as a launch begins: until then the keeper waits, so that one can be ready
// before it is needed. While it does what that says the agent makes the Plan, and
// while it does what the plan says the agent makes the cgroup. At last come Handed
// and all descriptors with it. Each Part is sent with its length before it (4
// bytes, big endian). When the socket is closed at any of these points, the
// keeper ends, and with it all that it has made. It answers with Told.
const Socket = 3

// Handed says which descriptors come after the fixed ones.
type Handed struct {
	Cgroups   int  // how many of those
	OOMEvents bool // an eventfd that tells of OOM (v1)
	CPUUsage  bool // the file in which the kernel counts the cgroup's CPU time
}

// The descriptors that come with Handed, in this order; the cgroups', the
// listening sockets, the OOM eventfd and the file of the CPU time follow.
const (
	State   = iota // the task's state folder
	Output         // the folder of its output
	Sandbox        // its sandbox folder
	Lock           // the state folder's lock, held
	Fixed          // how many these are
)

// Files in the state folder.
const (
	StartedFile = "started"
	ExitFile    = "exit"
	LockFile    = "lock"
	OutputName  = "output"
)
