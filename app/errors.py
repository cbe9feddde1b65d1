"""What can go wrong, as one tree; each class has an HTTP status and a sentence for people.

RarefindError
├── NotSignedIn                    401  no login session, or one that has ended
├── SignInLinkSpent                403  used, expired or never issued
│   └── PasswordLinkSpent          403  the same of a link that sets a password
├── NotAllowed                     403  signed in, without the right
├── CrossSiteRequest               403  a form that another site sent
├── NotFound                       404  no such thing, or not yours
├── NotDoneHere                    405  the address takes no such request
├── NameTaken                      409  another collection has that name
├── RoundAlreadyAnswered           409  a second tab, a double click, an old page
├── NothingToUndo                  409
├── WorkGoesOn                     409  it can't be deleted now
├── NoIndexYet                     409  the collection is still being prepared
├── EmbedderMismatch               409  vectors of another model
├── EmbedderNotUsable              409  its weights are missing, or another model's
├── IndexNotUsable                 500  its files are damaged
├── UploadMovedOn                  409  a chunk for another place of the file than its end
├── UnknownHost                    421  the request names a host that is not this server's
├── TooManyRequests                429  more in a minute than hands can do
├── RequestTooLarge                413  more bytes than any form of ours sends, or than a quota
├── BadInput                       422  a value that cannot be used, saying which
│   ├── SourceNotUsable            422  a folder or zip that cannot be read
│   ├── LabelsNotUsable            422  a labels file that cannot be read
│   ├── DetailsMissing             422  an export needs what only people know, and which of it
│   ├── RefusedGoal                422  a goal that cannot be, and which of its fields is why
│   ├── RefusedPhoto               422  an uploaded example that is not a usable photo
│   └── NoWords                    422  the images were prepared by a model that knows no words
├── UploadBusy                     423  another connection still sends the same file
├── DiskFull                       507  no room for what is sent or made
├── DiskLocked                     507  not all of the data folder can be read or written
├── BackupNotMade                  500  a folder that can't be used or written to
├── RestoreRefused                 409  no whole backup, or no empty place for it
├── ServerBusy                     503  as many requests wait as may
├── TookTooLong                    503  the database was at one statement for too long
├── ReadersBusy                    503  as many photos are decoded as can be at a time
├── StoreNotUsable                 503  the store of files is away, another one, or refuses us
│   └── StoreDamaged               500  it gives back other bytes than were put there
├── BeingFetched                   503  the prepared images are still on the way from the store
├── VectorsAway                    503  the Milvus that searches a collection, or what it held
└── DatabaseNotUsable              503  not reachable, or newer than this code
"""


class RarefindError(Exception):
    """A situation people can act on; `str()` says what happened and what to do."""

    status = 500
    title = "Something went wrong"
    wait_s: int | None = None  # until it is worth trying again, where that is known


class NotSignedIn(RarefindError):
    """No login session, or one that has ended."""

    status = 401
    title = "Please sign in"


class SignInLinkSpent(RarefindError):
    """The one-time link was used, has expired or was never issued."""

    status = 403
    title = "This sign-in link no longer works"


class PasswordLinkSpent(SignInLinkSpent):
    """The one-time link that sets a password was used, has expired or was never issued."""

    title = "This link to set a password no longer works"


class NotAllowed(RarefindError):
    """Signed in, but without the right to do this."""

    status = 403
    title = "You can't do that here"


class CrossSiteRequest(RarefindError):
    """A request that changes something and was sent by another site."""

    status = 403
    title = "This request came from another site"


class NotFound(RarefindError):
    """No such thing, or one that belongs to somebody else (the answer is the same on purpose)."""

    status = 404
    title = "Not found"


class NotDoneHere(RarefindError):
    """The address is one of ours and takes no request of this kind."""

    status = 405
    title = "That can't be done at this address"


class NameTaken(RarefindError):
    """Another collection already has that name."""

    status = 409
    title = "That name is taken"


class RoundAlreadyAnswered(RarefindError):
    """The round was submitted before: a second tab, a double click or an old page."""

    status = 409
    title = "That grid was already submitted"


class NothingToUndo(RarefindError):
    """There is no step to take back (or to do again)."""

    status = 409
    title = "Nothing to undo"


class WorkGoesOn(RarefindError):
    """Something works on what is to be deleted; the sentence says what to stop."""

    status = 409
    title = "Work goes on there"


class NoIndexYet(RarefindError):
    """The collection has no finished index, so nothing can be searched by likeness yet."""

    status = 409
    title = "This collection is still being prepared"


class EmbedderMismatch(RarefindError):
    """Vectors were made by another model, or another revision of it, than is loaded now."""

    status = 409
    title = "The images were prepared with another model"


class EmbedderNotUsable(RarefindError):
    """The weights of an embedder are not on this machine, or are not its own."""

    status = 409
    title = "That embedder can't be used"


class IndexNotUsable(RarefindError):
    """The files of an index are damaged, missing or another index's."""

    title = "The prepared images can't be opened"


class UnknownHost(RarefindError):
    """The request names a host by which this server does not know itself."""

    status = 421
    title = "That is not this server's address"


class TooManyRequests(RarefindError):
    """More requests in a minute than a person sends; `wait_s` until the next is taken."""

    status = 429
    title = "That was a lot at once"

    def __init__(self, wait_s: int) -> None:
        super().__init__(
            "More was asked for in a minute than one person should need. Only this last step was "
            f"not done: do it again in {wait_s} second{'' if wait_s == 1 else 's'}."
        )
        self.wait_s = wait_s


class RequestTooLarge(RarefindError):
    """A request with more bytes than any form of ours sends, or that does not say how many."""

    status = 413
    title = "That is too much at once"


class UploadMovedOn(RarefindError):
    """A chunk that does not begin where the file ends here; asking again tells where."""

    status = 409
    title = "That part is here already"


class UploadBusy(RarefindError):
    """Another connection, perhaps a lost one, still holds the file."""

    status = 423
    title = "This file is being sent already"


class DiskFull(RarefindError):
    """The disk of the data folder has no room for what is sent or made."""

    status = 507
    title = "The disk is full"


class DiskLocked(RarefindError):
    """Not all of the data folder can be read or written: its rights, or a read-only disk."""

    status = 507
    title = "The data folder can't be used"


class BackupNotMade(RarefindError):
    """The folder can't take a backup, or something can't be read; an earlier one is still whole."""

    title = "No backup was made"


class RestoreRefused(RarefindError):
    """The backup is not whole, or there is no empty place for it; the sentence says what to do."""

    status = 409
    title = "The backup was not restored"


class BadInput(RarefindError):
    """A value that cannot be used; the sentence says which and what would do."""

    status = 422
    title = "That can't be used"


class SourceNotUsable(BadInput):
    """A folder or zip that does not exist or cannot be read."""


class LabelsNotUsable(BadInput):
    """A labels file that cannot be read or has not the columns it needs."""


class DetailsMissing(BadInput):
    """An export in a standard's format needs what only people know; `wanted` names the fields."""

    title = "That export needs more"

    def __init__(self, sentence: str, wanted: tuple[str, ...]) -> None:
        super().__init__(sentence)
        self.wanted = wanted


class RefusedGoal(BadInput):
    """A goal of a search that cannot be; `field` is the one to change."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class RefusedPhoto(BadInput):
    """An uploaded example that is not a usable photo."""

    title = "That photo can't be used"


class NoWords(BadInput):
    """Words for an index whose embedder can't read them."""

    title = "Words can't be used here"


class ServerBusy(RarefindError):
    """As many requests wait for their turn as may, or this one has waited too long."""

    status = 503
    title = "Many people are asking at once"

    def __init__(self, wait_s: int) -> None:
        super().__init__(
            "Rarefind has more to do at this moment than it can. This last step was not done, and "
            f"nothing that was saved is lost: do it again in {wait_s} seconds. Answers in a grid "
            "are sent again by themselves."
        )
        self.wait_s = wait_s


class TookTooLong(RarefindError):
    """The database took too long for a statement, or waited too long for somebody else's."""

    status = 503
    title = "This took too long"
    wait_s = 5


class VectorsAway(RarefindError):
    """The Milvus that searches a collection does not answer, or lacks vectors."""

    status = 503
    title = "This collection can't be searched now"


class ReadersBusy(RarefindError):
    """Every process that decodes what requests bring or ask for is at work on something else."""

    status = 503
    title = "Photos are waiting to be read"

    def __init__(self, wait_s: int) -> None:
        super().__init__(
            "Rarefind is reading as many photos as it can. Nothing was changed: try again in "
            f"{wait_s} seconds."
        )
        self.wait_s = wait_s


class StoreNotUsable(RarefindError):
    """The store of files does not answer, is not there, or lets us not in."""

    status = 503
    title = "The store of files can't be used"

    def __init__(self, sentence: str, detail: str = "") -> None:
        super().__init__(sentence)
        self.detail = detail  # its address and the library's own words, for admins


class StoreDamaged(StoreNotUsable):
    """The store gives back other bytes than were put there."""

    status = 500


class BeingFetched(RarefindError):
    """What a request needs is still on the way from the store; it comes by itself."""

    status = 503
    title = "The prepared images are on their way"

    def __init__(self, wait_s: int) -> None:
        super().__init__(
            "What was prepared for searching is being brought to this server from the store. "
            f"Nothing was changed: try again in {wait_s} seconds."
        )
        self.wait_s = wait_s


class DatabaseNotUsable(RarefindError):
    """PostgreSQL cannot be reached, or holds a newer version's tables."""

    status = 503
    title = "The database can't be used"
