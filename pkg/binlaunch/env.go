package binlaunch

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/api/v1alpha1"
)

// environment is what a task is told: Mesos' and Marathon's variables, and
// above them the spec's own. Those that depend on the sandbox are the
// launcher's (MESOS_SANDBOX, LISTEN_FDS).
func environment(id, host string, b *v1alpha1.Binary, ports []int32) map[string]string {
	env := map[string]string{
		"HOST":                       host,
		"MESOS_TASK_ID":              id,
		"MARATHON_APP_ID":            "/" + b.Name,
		"MARATHON_APP_RESOURCE_CPUS": strconv.FormatFloat(b.Spec.Resources.CPU.AsApproximateFloat64(), 'f', -1, 64),
		"MARATHON_APP_RESOURCE_MEM":  strconv.FormatFloat(float64(b.Spec.Resources.Memory.Value())/(1<<20), 'f', -1, 64),
		"MARATHON_APP_RESOURCE_DISK": strconv.FormatFloat(float64(b.Spec.Resources.Disk.Value())/(1<<20), 'f', -1, 64),
	}
	var all []string
	for i, p := range b.Spec.Ports {
		n := strconv.Itoa(int(ports[i]))
		env[fmt.Sprintf("PORT%d", i)] = n
		env["PORT_"+variable(p.Name)] = n
		all = append(all, n)
	}
	if len(all) > 0 {
		env["PORT"], env["PORTS"] = all[0], strings.Join(all, ",")
	}
	own := map[string]string{}
	for _, e := range b.Spec.Env {
		own[e.Name] = expand(e.Value, env)
	}
	maps.Copy(env, own)
	return env
}

func variable(port string) string {
	return strings.ToUpper(strings.ReplaceAll(port, "-", "_"))
}

// command replaces $(NAME) as Kubernetes does in a container's command.
func command(args []string, env map[string]string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = expand(a, env)
	}
	return out
}

// expand replaces $(NAME) by the variable's value; one that is not known stays
// as it is, and $$ is a dollar.
func expand(s string, env map[string]string) string {
	return regexp.MustCompile(`\$\$|\$\([A-Za-z_][A-Za-z0-9_]*\)`).ReplaceAllStringFunc(s, func(m string) string {
		if m == "$$" {
			return "$"
		}
		if v, ok := env[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}
