package sandbox

// SleepAnnotation is the key of a task event's annotation that tells whether the
// sandbox is frozen from then on: SleepFrozen or SleepThawed. An event without it
// says nothing about that. The processes of a frozen sandbox stand still, and the
// kernel still takes connections for them.
const (
	SleepAnnotation = "sandbox.sleep"
	SleepFrozen     = "frozen"
	SleepThawed     = "thawed"
)

// SleepAnnotations are those of a task event that tells that the sandbox was
// frozen or thawed.
func SleepAnnotations(asleep bool) map[string]string {
	if asleep {
		return map[string]string{SleepAnnotation: SleepFrozen}
	}
	return map[string]string{SleepAnnotation: SleepThawed}
}

// AsleepFrom is the reverse of SleepAnnotations; told is false when the event
// does not say whether the sandbox is frozen.
func AsleepFrom(m map[string]string) (asleep, told bool) {
	switch m[SleepAnnotation] {
	case SleepFrozen:
		return true, true
	case SleepThawed:
		return false, true
	}
	return false, false
}
