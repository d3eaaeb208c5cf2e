import tempfile
import unittest
from pathlib import Path

from outbox import Outbox


def mail(number):
    return {"id": f"orders.placed/{number}", "order_id": str(number), "to": "ada@example.com", "subject": "Hello"}


class OutboxTest(unittest.TestCase):
    def test_mails_outlive_the_process_and_come_once(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data" / "outbox.jsonl"
            outbox = Outbox(path)
            self.assertTrue(outbox.add(mail(1)))
            self.assertFalse(outbox.add(mail(1)))
            self.assertTrue(outbox.add(mail(2)))
            outbox.close()
            with path.open("ab") as torn:
                torn.write(b'{"id": "orders.pla')

            outbox = Outbox(path)
            self.assertFalse(outbox.add(mail(2)))
            self.assertTrue(outbox.add(mail(3)))
            outbox.close()

            outbox = Outbox(path)
            self.assertEqual(outbox.mails(), [mail(1), mail(2), mail(3)])
            self.assertEqual(outbox.mails("2"), [mail(2)])
            outbox.close()


if __name__ == "__main__":
    unittest.main()
