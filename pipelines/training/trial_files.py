"""The files that a trial leaves in its folder, named in one place."""

MODEL_FILE = "model.keras"
CHECKPOINT_FILE = "checkpoint.npz"
RESULT_FILE = "result.json"
TEST_FILE = "test.json"
PREDICTIONS_FILE = "predictions.npz"
HISTORY_FILE = "curves.csv"
SUMMARY_FILE = "model_summary.txt"
CURVES_PICTURE = "curves.png"
CONFUSION_TABLE = "confusion_validation.csv"
CONFUSION_PICTURE = "confusion_validation.png"
MISTAKES_PICTURE = "mistakes_validation.png"
FIGURE_FILES = (
    SUMMARY_FILE,
    HISTORY_FILE,
    CURVES_PICTURE,
    CONFUSION_TABLE,
    CONFUSION_PICTURE,
    MISTAKES_PICTURE,
)
"""What goes to MLflow as artifacts of every trial."""
