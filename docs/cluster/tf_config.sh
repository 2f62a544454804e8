# Sets TF_CONFIG for this worker; to be sourced (`. docs/cluster/tf_config.sh`), in bash.
#
# Under Slurm, with one task a node: from SLURM_JOB_NODELIST and SLURM_PROCID.
# In an indexed Job of Kubernetes: from JOB_COMPLETION_INDEX, and from WORKERS (how many there are),
# JOB (the Job's name) and SERVICE (that of its headless Service), which the manifest sets.
# PORT is the port on which the workers talk to each other, 2222 where it is not set.

_hosts=()
if [ -n "${SLURM_JOB_NODELIST:-}" ]; then
  _index=$SLURM_PROCID
  while read -r _name; do _hosts+=("$_name"); done < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
elif [ -n "${JOB_COMPLETION_INDEX:-}" ]; then
  _index=$JOB_COMPLETION_INDEX
  for ((_i = 0; _i < WORKERS; _i++)); do _hosts+=("$JOB-$_i.$SERVICE"); done
else
  echo "tf_config.sh: received neither SLURM_JOB_NODELIST nor JOB_COMPLETION_INDEX" >&2
  exit 2
fi

_list=""
for _name in "${_hosts[@]}"; do _list+="${_list:+, }\"$_name:${PORT:-2222}\""; done
TF_CONFIG="{\"cluster\": {\"worker\": [$_list]}, \"task\": {\"type\": \"worker\", \"index\": $_index}}"
export TF_CONFIG
