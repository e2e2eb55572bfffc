from t2t_vqem.training import record


def test_a_machine_in_a_line():
    machine = {"cpu": "AMD EPYC", "cores": 2, "gpus": [], "tpus": []}
    assert record.machine_line(machine) == "2 cores of AMD EPYC"
    attached = machine | {"gpus": ["H200", "H200"], "tpus": ["TPU v4"]}
    assert record.machine_line(attached) == "2 cores of AMD EPYC, 2 x H200, 1 x TPU v4"
    assert record.machine().keys() == machine.keys()
