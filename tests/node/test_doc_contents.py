"""``tidings doc policy`` and ``contents`` in processes."""

from collections.abc import Callable

from program import Outcome


def test_a_policy_is_printed_and_changed(here: Callable[..., Outcome]) -> None:
    doc = here("doc", "new").text()
    assert here("doc", "policy", doc).text() == "everything"
    some = ["--nothing-but", "prefix:utf8:photos/", "--nothing-but", "exact:hex:00ff"]
    assert here("doc", "policy", doc, *some).text() == "nothing except prefix:utf8:photos/, exact:hex:00ff"
    [policy] = here("--json", "doc", "policy", doc).json()
    assert policy == {"everything": False, "filters": ["prefix:utf8:photos/", "exact:hex:00ff"]}
    assert here("doc", "policy", doc, "--everything-but", "prefix:utf8:a").text() == "everything except prefix:utf8:a"
    assert here("doc", "policy", doc, "--nothing").text() == "nothing"
    assert here("doc", "policy", doc, "--everything").text() == "everything"
    assert "is no filter" in here("doc", "policy", doc, "--nothing-but", "photos/").refused()
    assert "give one of" in here("doc", "policy", doc, "--nothing", "--everything").refused()


def test_contents_of_a_document_that_was_never_shared(here: Callable[..., Outcome]) -> None:
    doc = here("doc", "new").text()
    here("doc", "set", doc, "mine", "here")
    assert here("doc", "contents", doc).text() == ""
    assert here("doc", "contents", doc, "--count").text() == "0 wanted, 0 failed, 0 had"
    assert here("--json", "doc", "contents", doc, "--count", "--state", "had").json() == [{"had": 0}]
