def test_all_modules_import_under_shape_checking_and_a_tiny_run_works(tmp_path):
    from mutualign.data.tasks import TASKS
    from mutualign.experiment import Experiment
    from mutualign.recipes import load_recipe

    r = load_recipe("mani", ["stages.0.epochs=1", "stages.1.epochs=1"])
    Experiment.start(r, TASKS["digits"].load(tmp_path), 0, tmp_path / "run").run()
