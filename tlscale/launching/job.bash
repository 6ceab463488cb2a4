# From here on the script is the same for every job.

# Only the newest try of a run may write to its directory.
restarts=${SLURM_RESTART_COUNT:-0}
export TLSCALE_TRY=$SLURM_JOB_ID.$restarts
self=$SLURM_JOB_ID
[[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || self=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

# The rendezvous: a port of this job and try, so that neither another job nor an earlier try holds it.
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts[0]} MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + restarts) % 10000))

on_one() { srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" "${inside[@]}" "$python" -m "$@"; }
on_all=(srun --nodes="$machines" --ntasks="$machines" --ntasks-per-node=1)

# A signal asks all ranks to save at the end of their step. Slurm sends one before the time limit, at
# preemption and at scancel; a late one from an earlier try costs a save and changes nothing.
run=
ask_to_stop() {
  [[ -n $run && ! -e $run/STOP && $(cat "$run/attempt" 2>/dev/null) = "$TLSCALE_TRY" ]] || return 0
  printf '%s\n' "$1" >"$run/STOP"
}
trap 'ask_to_stop "time limit"' USR1
trap 'ask_to_stop "asked by Slurm"' TERM

# Whether another try of this run has begun: this machine was cut off, and Slurm went on without it. Nothing
# here may touch the run or the job then. A file system that is away for a while says nothing about it.
superseded() {
  local now
  now=$(cat "$run/attempt" 2>/dev/null) && [[ $now != "$TLSCALE_TRY" ]]
}

# Queues this job again, unless it was cancelled; the machines in $1 are left out from now on.
come_back() {
  local job excluded tries
  for ((tries = 0; tries < 30; tries++)); do
    job=$(scontrol show job -o "$self") && break # a controller that is away comes back
    sleep 10
  done
  ! superseded && [[ $job = *" Restarts=$restarts "* ]] || exit 76
  case $job in
    *JobState=RUNNING* | *JobState=PENDING* | *JobState=PREEMPTED* | *Reason=TimeLimit*) ;;
    *) exit 75 ;;
  esac
  # Slurm ends this script as soon as it hears of it, and must still be told the rest
  [[ -z ${1:-} ]] || trap '' TERM
  scontrol requeue "$self"
  if [[ -n ${1:-} ]]; then
    excluded=${job##* ExcNodeList=}
    excluded=${excluded%% *}
    [[ $excluded = "(null)" ]] || set -- "$excluded,$1"
    scontrol update JobId="$self" ExcNodeList="$1"
    trap - TERM
  fi
  sleep 180 # Slurm ends this script meanwhile
  exit 75
}

# Examines every machine; those that fail are named and left out of the next try.
examined=no
preflight() {
  [[ $preflight = yes && $examined = no ]] || return 0
  "${on_all[@]}" --wait=0 --time=2 "${inside[@]}" "$python" -m tlscale.launching.preflight "$run" \
    --machines="$machines" --min-free-gb="$min_free_gb"
  local bad
  bad=$(on_one tlscale.launching.attempt judge "$run" --machines="$(IFS=,; echo "${hosts[*]}")") || exit 1
  [[ -z $bad ]] || come_back "$bad"
  examined=yes
}

for run in "${runs[@]}"; do
  on_one tlscale.launching.attempt begin "$run" --machines="$(IFS=,; echo "${hosts[*]}")" \
    --tries-without-progress="$tries_without_progress"
  case $? in 0) ;; 10) continue ;; *) exit 1 ;; esac
  preflight
  set -m # srun and its guard in a process group of their own
  "${on_all[@]}" --kill-on-bad-exit=1 --wait=60 "${inside[@]}" "$python" -m tlscale.launching.node "$run" \
    --machines="$machines" --processes="$processes" &
  step=$!
  set +m
  while kill -0 "$step" 2>/dev/null; do
    # an srun that was cut off from the other machines would wait for them; its guard would end their step
    ! superseded || { kill -KILL -- "-$step"; exit 76; }
    sleep 1 &
    wait $!
  done
  wait "$step"
  code=$?
  printf '{"time": %s, "event": "end", "try": "%s", "code": %d}\n' \
    "$(date +%s)" "$TLSCALE_TRY" "$code" >>"$run/attempts.jsonl"

  # Exit codes get lost on the way through launchers; the marker files say what happened. An error that
  # tlscale names would come again; a hang, a kill or a lost machine need not.
  [[ ! -e $run/DONE ]] || continue
  ! grep --quiet --extended-regexp '^[A-Za-z]+Error: ' "$run/FAILED" 2>/dev/null || exit 1
  [[ "$(cat "$run/STOP" 2>/dev/null)" != cancel ]] || exit 0
  come_back
done
