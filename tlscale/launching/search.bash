# From here on the script is the same for every search.

self=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
began=$root/slurm/began-$self.${SLURM_RESTART_COUNT:-0}
touch "$began"

# Before the time limit: a search goes on where it was, so the job comes back, unless nothing came of this try.
come_back() {
  [[ -n $(find "$root" \( -name manifest.json -o -name trials.jsonl \) -newer "$began" -print -quit) ]] ||
    { echo "nothing was gained since this try began; it does not come back" >&2; exit 1; }
  scontrol requeue "$self"
}
due=no
trap 'due=yes' USR1

srun --nodes=1 --ntasks=1 "${inside[@]}" "${command[@]}" &
step=$! code=0
while kill -0 "$step" 2>/dev/null; do
  wait "$step"
  code=$?
  [[ $due = no ]] || { due=no; come_back; }
done
exit "$code"
