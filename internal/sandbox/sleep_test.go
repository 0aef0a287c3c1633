package sandbox

import "testing"

func TestSleepThroughNomad(t *testing.T) {
	for _, want := range []bool{true, false} {
		if u, asleep, told := AsleepFrom(SleepAnnotations("alice", want)); !told || asleep != want || u != "alice" {
			t.Errorf("AsleepFrom(SleepAnnotations(alice, %v)) = %v, %v, %v", want, u, asleep, told)
		}
	}
	for _, m := range []map[string]string{nil, {}, {"other": SleepFrozen}, {SleepAnnotation: "dozing", userAnnotation: "alice"}, {SleepAnnotation: SleepFrozen, userAnnotation: "../x"}, Progress{Phase: PhaseReady}.Annotations()} {
		if _, _, told := AsleepFrom(m); told {
			t.Errorf("%v was taken for news of a sleep", m)
		}
	}
}
