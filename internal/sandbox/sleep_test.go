package sandbox

import "testing"

func TestSleepThroughNomad(t *testing.T) {
	for _, want := range []bool{true, false} {
		if asleep, told := AsleepFrom(SleepAnnotations(want)); !told || asleep != want {
			t.Errorf("AsleepFrom(SleepAnnotations(%v)) = %v, %v", want, asleep, told)
		}
	}
	for _, m := range []map[string]string{nil, {}, {"other": SleepFrozen}, {SleepAnnotation: "dozing"}, Progress{Phase: PhaseReady}.Annotations()} {
		if _, told := AsleepFrom(m); told {
			t.Errorf("%v was taken for news of a sleep", m)
		}
	}
}
