"""Providers are folders; each has its suite."""

from pathlib import Path

from agent.credentials.discover import providers
from agent.policy.parse_credential import LATER_PROVIDERS


def test_every_folder_is_found_and_tested(repository: Path) -> None:
    """And a provider that is here is not announced as a later one."""
    found = providers()
    assert "static" in found
    for name in found:
        tests = repository / "tests" / "unit" / "credentials" / name / "test_provider.py"
        assert "check_all" in tests.read_text(encoding="utf-8")
        assert name not in LATER_PROVIDERS
