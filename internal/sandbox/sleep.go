package sandbox

// SleepAnnotation is the key of a task event's annotation that tells whether the
// sandbox is frozen from then on: SleepFrozen or SleepThawed. An event without it
// says nothing about that. The processes of a frozen sandbox stand still, and the
// kernel still takes connections for them.
const (
	SleepAnnotation = "sandbox.sleep"
	SleepFrozen     = "frozen"
	SleepThawed     = "thawed"
	// userAnnotation says whose sandbox it is: an event does not name the job's meta.
	userAnnotation = "sandbox.user"
)

// SleepAnnotations are those of a task event that tells that the user's sandbox was
// frozen or thawed.
func SleepAnnotations(u User, asleep bool) map[string]string {
	m := map[string]string{SleepAnnotation: SleepThawed, userAnnotation: string(u)}
	if asleep {
		m[SleepAnnotation] = SleepFrozen
	}
	return m
}

// AsleepFrom is the reverse of SleepAnnotations; told is false when the event
// does not say whether the sandbox is frozen.
func AsleepFrom(m map[string]string) (u User, asleep, told bool) {
	u, err := ParseUser(m[userAnnotation])
	if err != nil {
		return "", false, false
	}
	switch m[SleepAnnotation] {
	case SleepFrozen:
		return u, true, true
	case SleepThawed:
		return u, false, true
	}
	return "", false, false
}
